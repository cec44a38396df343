"""The flagship sweep through the whole application against the same packs run by the engine alone.

Both use two processes with one thread each, both have warm runners, both train the same packs in the same
order; each is timed from "here is the work" to "everything is done", by turns. The application's time has the
API, the queue, the database writes, checkpoints and adapters in it.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from benchmarks._application import run_stack as application
from lora_alpha.catalog.resolve import resolve
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import plan_packs
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration, TrainSpec, expand
from lora_alpha.wire.client import Client

WORKERS, TURNS = 2, 3
LIMIT_S, LIMIT_RATIO = 60.0, 1.15


def main() -> None:
    """Print the seconds of each turn and the ratio of the medians."""
    request = SweepRequest(name="stack", workload="mlp")
    spec = resolve(request)
    runs = expand(spec)
    configurations = [run.configuration for run in runs]
    packs = plan_packs(spec.train, configurations, fleet=Fleet(WORKERS))
    print(f"{len(runs)} runs of mlp × {spec.train.steps} steps in {len(packs)} packs, {WORKERS} processes")
    work = [[configurations[index] for index in pack] for pack in packs]
    alone, stack = [], []
    with engine_processes() as (tasks, results), service() as client:
        for _ in range(TURNS):
            alone.append(run_alone(spec.train, work, tasks, results))
            stack.append(run_stack(client, request))
            print(f"engine alone {alone[-1]:6.2f} s   whole stack {stack[-1]:6.2f} s")
    ratio = statistics.median(stack) / statistics.median(alone)
    print(
        f"median: engine alone {statistics.median(alone):.1f} s, whole stack {statistics.median(stack):.1f} s"
        f" (wanted ≤ {LIMIT_S:.0f}), ratio {ratio:.2f} (wanted ≤ {LIMIT_RATIO})"
    )


def run_alone(
    train: TrainSpec, packs: list[list[Configuration]], tasks: Queue[Any], results: Queue[Any]
) -> float:
    """Seconds until the engine has trained every pack, without a database."""
    started = time.perf_counter()
    for pack in packs:
        tasks.put((train, pack))
    for _ in packs:
        results.get()
    return time.perf_counter() - started


def run_stack(client: Client, request: SweepRequest) -> float:
    """Seconds from the request to a finished sweep."""
    started = time.perf_counter()
    sweep = client.create_sweep(request)
    while client.sweep(sweep.id).state != "finished":
        time.sleep(0.05)
    return time.perf_counter() - started


@contextmanager
def engine_processes() -> Iterator[tuple[Queue[Any], Queue[Any]]]:
    """Two warm processes that train what is put into the first queue."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    processes = [context.Process(target=serve, args=(tasks, results), daemon=True) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    for _ in processes:
        results.get()
    try:
        yield tasks, results
    finally:
        for process in processes:
            process.kill()


def serve(tasks: Queue[Any], results: Queue[Any]) -> None:
    """Train packs until killed; says "ready" after a first small one."""
    import torch

    from lora_alpha.training.engine import train_pack
    from lora_alpha.workloads.registry import load_workload

    torch.set_num_threads(1)
    workload = load_workload("mlp", {})
    first = TrainSpec(workload="mlp", steps=5, batch_size=64)
    for _ in train_pack(workload, first, [Configuration(method="lora", rank=4, alpha=8, lr=1e-4, seed=0)]):
        pass
    results.put("ready")
    while True:
        train, pack = tasks.get()
        for _ in train_pack(load_workload("mlp", train.workload_options), train, pack):
            pass
        results.put("done")


@contextmanager
def service() -> Iterator[Client]:
    """``lora-alpha up`` in a folder of its own, warmed by a small sweep."""
    with (
        tempfile.TemporaryDirectory() as home,
        application(Path(home), workers=WORKERS) as running,
        running.client() as client,
    ):
        run_stack(client, SweepRequest(workload="mlp", ranks=[1, 2], steps=20, seeds=[0, 1]))
        yield client


if __name__ == "__main__":
    main()
