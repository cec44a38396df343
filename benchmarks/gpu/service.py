"""The stages that use the application as a user does: ``up``, sweeps with probes, a killed worker."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from benchmarks._application import History, Stack, log_tails, run_stack
from benchmarks.gpu.curves import compare, problems
from benchmarks.gpu.requests import size_of
from benchmarks.gpu.stages import Figures, Plan, Skip
from command_line.progress import follow
from lora_alpha.request import SweepRequest
from lora_alpha.spec import ENDED_RUNS, ENDED_SWEEPS, ProbeSpec
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import Probe
from lora_alpha.wire.sweeps import Sweep, Worker

# The largest difference that a curve of the disturbed sweep may have, as a share of the curve's largest
# value. A CPU repeats itself bit for bit; a GPU may choose other kernels beside another process.
TOLERANCE = {"cpu": 0.0, "cuda": 1e-3}
KILL_AT = 0.3  # the share of a sweep that is done by then


def start(plan: Plan, figures: Figures) -> str:
    """``lora-alpha up``, and its workers on the device that was asked for."""
    started = time.perf_counter()
    plan.running.callback(save_results, plan.home, plan.out)
    size = size_of(quick=plan.quick)
    stack = plan.running.enter_context(run_stack(plan.home, workers=size.workers, **size.settings))
    figures["answers_after_s"] = round(time.perf_counter() - started, 2)
    with stack.client() as client:
        while len(workers := _living(client, stack)) < size.workers:
            time.sleep(0.1)
    figures["workers_after_s"] = round(time.perf_counter() - started, 2)
    figures["devices"] = sorted(worker.device for worker in workers)
    wrong = [device for device in figures["devices"] if not device.startswith(plan.device)]
    if wrong:
        raise AssertionError(f"workers run on {', '.join(wrong)}, not on {plan.device}: `up` takes every GPU")
    plan.shared["stack"] = stack
    devices = ", ".join(sorted(set(figures["devices"])))
    return f"{size.workers} workers on {devices} after {figures['workers_after_s']} s"


def sweeps(plan: Plan, figures: Figures) -> str:
    """Each request as a sweep of its own, with the probes that it attaches and some that are queued after."""
    stack: Stack = plan.shared["stack"]
    histories: dict[str, History] = plan.shared.setdefault("histories", {})
    wrong: list[str] = []
    with stack.client() as client:
        for request in size_of(quick=plan.quick).requests:
            started = time.perf_counter()
            sweep = _follow(client, client.create_sweep(request))
            seconds = time.perf_counter() - started
            steps = sum(run.step for run in client.all_runs(sweep.id))
            histories[sweep.name] = stack.history(sweep.id)
            figures[sweep.name] = {
                "state": sweep.state,
                "runs": sweep.counts.total,
                "finished": sweep.counts.finished,
                "diverged": sweep.counts.diverged,
                "seconds": round(seconds, 2),
                "run_steps_per_s": round(steps / seconds, 1),
            }
            wrong += [f"{sweep.name}: {problem}" for problem in _whole(figures[sweep.name])]
        probes = _probes(client, size_of(quick=plan.quick).requests)
        figures["probes"] = [_probe_figures(probe) for probe in probes]
    bad = [probe for probe in probes if probe.state != "finished"]
    if bad:
        wrong.append(f"{len(bad)} of {len(probes)} probes {bad[0].state}: {bad[0].error}")
    if wrong:
        raise AssertionError("; ".join(wrong))
    speeds = [
        f"{name} {figures[name]['finished']} runs, {figures[name]['run_steps_per_s']:.0f} run-steps/s"
        for name in histories
    ]
    return f"{'; '.join(speeds)}; {len(probes)} probes"


def kill(plan: Plan, figures: Figures) -> str:
    """The sweeps again, each with ``kill -9`` of a worker and its runner; compared with the first time."""
    stack: Stack = plan.shared["stack"]
    size, wrong, lines = size_of(quick=plan.quick), [], []
    with stack.client() as client:
        _cancel_leftovers(client)
        for request in size.requests[: size.repeated]:
            name = str(request.name)
            calm = plan.shared.get("histories", {}).get(name)
            if calm is None:
                wrong.append(f"{name}: there is no undisturbed sweep to compare with")
                continue
            figures[name] = found = _disturbed(client, stack, request, calm)
            said = [*_whole(found), *problems(found, tolerance=TOLERANCE[plan.device])]
            wrong += [f"{name}: {problem}" for problem in said]
            taken, largest = found["runs_taken_over"], found["largest_difference"]
            lines.append(f"{name}: {taken} runs taken over, largest difference {largest:.1g}")
    figures["tolerance"] = TOLERANCE[plan.device]
    if wrong:
        raise AssertionError("; ".join(wrong))
    return "; ".join(lines)


def stop(plan: Plan, figures: Figures) -> str:
    """End the service; its database and logs are copied."""
    started = time.perf_counter()
    plan.close()
    database = plan.out / "lora_alpha.db"
    if not database.exists():
        raise Skip("no service was started")
    figures["seconds"] = round(time.perf_counter() - started, 2)
    figures["database_bytes"] = database.stat().st_size
    return f"lora_alpha.db: {figures['database_bytes'] / 2**20:.1f} MiB"


def save_results(home: Path, out: Path) -> None:
    """Copy database and ends of logs from ``home`` to ``out``, as far as there are any."""
    database = home / "lora_alpha.db"
    if database.exists():
        (out / "lora_alpha.db").unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(out / "lora_alpha.db")) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    (out / "logs.txt").write_text(log_tails(home), encoding="utf-8")


def _disturbed(client: Client, stack: Stack, request: SweepRequest, calm: History) -> Figures:
    """One sweep with a killed worker, beside the curves of the undisturbed one."""
    started = time.perf_counter()
    sweep = client.create_sweep(request.model_copy(update={"probes": None}))
    reached = stack.wait_until(sweep.id, lambda sweep: sweep.progress >= KILL_AT)
    victims = _kill_one(client, stack)
    ended = _follow(client, sweep)
    return {
        "state": ended.state,
        "runs": ended.counts.total,
        "finished": ended.counts.finished,
        "killed_at_progress": round(reached.progress, 3),
        "killed_processes": len(victims),
        "runs_taken_over": sum(run.attempt > 1 for run in client.all_runs(sweep.id)),
        "seconds": round(time.perf_counter() - started, 2),
        **compare(calm, stack.history(sweep.id)),
    }


def _whole(found: Figures) -> list[str]:
    """What is wrong with a sweep's end, and with the kill."""
    said = []
    if found["state"] != "finished" or found["finished"] != found["runs"]:
        said.append(f"it is {found['state']} with {found['finished']} of {found['runs']} runs")
    if not found.get("runs_taken_over", True):
        said.append("the kill hit no run: nothing was taken over")
    return said


def _cancel_leftovers(client: Client) -> None:
    """What a stage that ran out of time left behind."""
    for sweep in client.sweeps().items:
        if sweep.state not in ENDED_SWEEPS:
            client.sweep_action(sweep.id, "cancel")
    for probe in client.probes().items:
        if probe.state not in ENDED_RUNS:
            client.cancel_probe(probe.id)


def _follow(client: Client, sweep: Sweep) -> Sweep:
    return follow(client, [sweep.id], console=Console())[0]


def _living(client: Client, stack: Stack) -> list[Worker]:
    """Workers that are processes now: a killed one stays in the list until it is missed."""
    alive = stack.processes()
    return [worker for worker in client.workers().items if worker.state != "gone" and worker.pid in alive]


def _kill_one(client: Client, stack: Stack) -> list[int]:
    """Kill a worker that is busy, and its runner at once."""
    busy = [worker for worker in _living(client, stack) if worker.state == "busy"]
    if not busy:
        raise AssertionError("no worker is busy: the sweep is too short to be disturbed")
    victims = [busy[0].pid, *stack.runners_of(busy[0].pid)]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return victims


def _probes(client: Client, requests: Sequence[SweepRequest]) -> list[Probe]:
    """Every probe as it ended: those that the sweeps attached, three at a run of the first, one elsewhere."""
    ids = {sweep.name: sweep.id for sweep in client.sweeps().items}
    first = requests[0]
    run = client.all_runs(ids[str(first.name)])[-1]
    queued = [
        client.create_probe({"run": run.id, "kind": kind, "space": space, "num_vectors": 4, "iterations": 20})
        for kind, space in (("extremes", "lora"), ("extremes", "full"), ("density", "lora"))
    ]
    queued.append(
        client.create_probe(
            ProbeSpec(workload=first.workload, workload_options=first.workload_options, rank=4, alpha=32)
        )
    )
    attached = [probe for id_ in ids.values() for probe in client.probes(sweep=id_).items]
    wanted = {probe.id for probe in (*queued, *attached)}
    while True:
        probes = [client.probe(id_) for id_ in sorted(wanted)]
        if all(probe.state in ENDED_RUNS for probe in probes):
            return probes
        time.sleep(0.2)


def _probe_figures(probe: Probe) -> Figures:
    """The numbers of a probe; whatever is a list is in the database."""
    result = probe.result or {}
    numbers = {name: value for name, value in result.items() if not isinstance(value, list | dict)}
    return {"state": probe.state, "error": probe.error, "point": result.get("point"), **numbers}
