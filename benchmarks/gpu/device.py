"""The stages that need no service: what the machine is, CUDA tests, the engine alone, packs against PEFT."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.gpu.packages import version
from benchmarks.gpu.stages import Figures, Plan, Skip

REPOSITORY = Path(__file__).parents[2]
NAMED_PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "dash", "celery", "sqlalchemy")
# What packing leaves of its stage's time to end its process.
ENDING_S = 5.0
PACKING_S = 140.0
Emit = Callable[[Figures], None]


def describe(plan: Plan, figures: Figures) -> str:
    """Names and versions; fails where the device that was asked for is absent."""
    figures.update(
        python=platform.python_version(), system=platform.platform(), cores=len(os.sched_getaffinity(0))
    )
    figures["packages"] = {name: version(name) for name in NAMED_PACKAGES}
    plan.machine.update(figures)
    import torch

    figures["device"] = platform.processor() or platform.machine()
    if plan.device == "cuda":
        if not torch.cuda.is_available():
            raise AssertionError("torch finds no CUDA device: --device cpu runs the same on the processor")
        figures["device"] = torch.cuda.get_device_name(0)
        figures["cuda"] = torch.version.cuda
        figures["device_bytes"] = torch.cuda.get_device_properties(0).total_memory
    plan.machine.update(figures)
    return f"{figures['device']}, Python {figures['python']}, torch {figures['packages']['torch']}"


def tests(plan: Plan, figures: Figures) -> str:
    """``test_cuda.py`` by pytest; what it says goes to ``tests.txt``."""
    if plan.device == "cpu":
        raise Skip("no CUDA device was asked for: test_cuda.py is about one")
    # Without the conftests, which ask for PostgreSQL's and Redis's packages.
    command = [sys.executable, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider"]
    path = plan.out / "tests.txt"
    with path.open("w", encoding="utf-8") as file:
        ended = subprocess.run(
            [*command, "tests/lora_alpha/test_cuda.py"],
            cwd=REPOSITORY,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = path.read_text(encoding="utf-8", errors="replace")
    last = said.strip().splitlines()[-1] if said.strip() else ""
    figures.update({word: int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", last)})
    if ended.returncode:
        raise AssertionError(f"pytest ended with {ended.returncode}: {last}\n{said[-3000:]}")
    return last.strip("= ")


def engine(plan: Plan, figures: Figures) -> str:
    """The first sweep's packs one after the other in one process, without a service."""
    for row in in_a_process(_train, plan.device, plan.quick):
        figures.update(row)
    return f"{figures['runs']} runs of {figures['workload']}, {figures['run_steps_per_s']:.0f} run-steps/s"


def packing(plan: Plan, figures: Figures) -> str:
    """Packs against PEFT; what is not measured in time is left out."""
    until = min(time.monotonic() + PACKING_S, plan.deadline - ENDING_S)
    figures["complete"], figures["rows"] = False, []
    for row in in_a_process(_compare, plan.device, plan.quick, until=until):
        if row == {"complete": True}:
            figures["complete"] = True
        else:
            figures["rows"].append(row)
    if not figures["rows"]:
        raise AssertionError("nothing was measured in time")
    best = max(figures["rows"], key=lambda row: row["times_eager"])
    left_out = "" if figures["complete"] else "; the rest did not fit into the time"
    return (
        f"{best['contender']} at {best['tokens']} tokens: {best['samples_per_s']:.0f} samples/s,"
        f" {best['times_eager']:.1f} × PEFT eager{left_out}"
    )


def in_a_process(work: Callable[..., None], *arguments: Any, until: float | None = None) -> Iterator[Figures]:
    """What ``work(emit, *arguments)`` emits in a new process, until it returns or ``until`` has come.

    A device's memory is free again afterwards, whatever happened. Raises RuntimeError with what the process
    raised, or with its exit status.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, sender, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        while until is None or time.monotonic() < until:
            if not receiver.poll(0.5):
                continue
            try:
                kind, value = receiver.recv()
            except EOFError:
                process.join(5)
                raise RuntimeError(f"the process ended with {process.exitcode}") from None
            if kind == "error":
                raise RuntimeError(value)
            if kind == "done":
                return
            yield value
    finally:
        process.kill()
        process.join()
        receiver.close()


def _serve(work: Callable[..., None], sender: Connection, arguments: tuple[Any, ...]) -> None:
    try:
        work(lambda row: sender.send(("row", row)), *arguments)
        sender.send(("done", None))
    except Exception as error:
        sender.send(("error", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


def _train(emit: Emit, device: str, quick: bool) -> None:
    import torch

    from benchmarks.gpu.requests import size_of
    from lora_alpha.catalog.resolve import resolve
    from lora_alpha.planning.fleet import Fleet, gpu_memory_bytes
    from lora_alpha.planning.planner import plan_packs
    from lora_alpha.spec import expand
    from lora_alpha.training.engine import train_pack
    from lora_alpha.training.records import PackFinished
    from lora_alpha.workloads.registry import load_workload

    torch.set_num_threads(1)
    place = "cuda:0" if device == "cuda" else "cpu"
    spec = resolve(size_of(quick=quick).requests[0])
    configurations = [run.configuration for run in expand(spec)]
    packs = plan_packs(spec.train, configurations, fleet=Fleet(1, gpu_memory_bytes(place)))
    workload = load_workload(spec.train.workload, spec.train.workload_options)
    started, losses = time.perf_counter(), []
    for pack in packs:
        for event in train_pack(workload, spec.train, [configurations[i] for i in pack], device=place):
            if isinstance(event, PackFinished):
                losses += [result.final_loss for result in event.results]
    seconds = time.perf_counter() - started
    if len(losses) != len(configurations):
        raise AssertionError(f"{len(losses)} of {len(configurations)} runs have ended")
    emit(
        {
            "workload": spec.train.workload,
            "runs": len(losses),
            "packs": len(packs),
            "seconds": round(seconds, 2),
            "run_steps_per_s": round(len(losses) * spec.train.steps / seconds, 1),
            "best_loss": min(loss for loss in losses if loss is not None),
        }
    )


def _compare(emit: Emit, device: str, quick: bool) -> None:
    from benchmarks import packing

    setting = packing.ON_CPU if device == "cpu" else packing.ON_GPU
    if quick:
        tiny = {**setting.shape, "num_hidden_layers": 1}
        setting = dataclasses.replace(
            setting, shape=tiny, tokens=(128,), compiled_at=(), counts=(1, 4), turns=1, turn_seconds=0.1
        )
    elif device == "cuda":
        setting = dataclasses.replace(setting, tokens=(128, 512, 2048), compiled_at=(512,))
    packing.configure()
    for tokens in setting.tokens:
        contenders = packing.compare(setting, tokens)
        for contender in contenders:
            emit(
                {
                    "tokens": tokens,
                    "contender": contender.name,
                    "samples_per_s": round(tokens // setting.sequence / contender.seconds, 2),
                    "times_eager": round(contenders[0].seconds / contender.seconds, 3),
                    "peak_bytes": contender.peak_bytes,
                    "first_step_s": round(contender.compile_s, 2),
                }
            )
    emit({"complete": True})
