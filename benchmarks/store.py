"""The metric store through our HTTP API: 100 runs × 1,000 steps × 3 metrics; a project of 10,000 runs.

Writing is timed in the worker's own path (fenced transactions of 100 steps), reading through the client over
a socket. The floor is the same points in plain SQLite: one table, a row a point, batches of 100 steps.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import update

from backend.services import jobs
from backend.settings import Settings
from backend.store.engines import Store, open_store
from backend.store.metrics import CurveWriter
from backend.store.tables import RunRow
from lora_alpha.errors import ServiceUnreachable
from lora_alpha.request import SweepRequest
from lora_alpha.wire.client import Client

RUNS, STEPS, METRICS, BATCH = 100, 1000, ("train_loss", "eval_loss", "grad_norm"), 100
PROJECT_RUNS = 10_000


def main() -> None:
    """Print each figure beside what is wanted."""
    with tempfile.TemporaryDirectory() as home, service(Path(home)) as client:
        settings = Settings(home=Path(home))
        store = open_store(settings.database)
        sweep = client.create_sweep(
            SweepRequest(workload="mlp", ranks=[4], alphas=[8.0], seeds=list(range(RUNS)), steps=STEPS)
        )
        report("write 300k points", write_curves(store), 5.0)
        size = sum(path.stat().st_size for path in Path(home).glob("*.db*")) / 1e6
        print(f"{'size on disk':44s} {size:8.1f} MB   ≤ 15 MB")
        for points, limit in ((STEPS, 0.25), (200, 0.1)):
            seconds = best(lambda points=points: client.curves(sweep.id, metric="train_loss", points=points))
            report(f"100 curves at {points} points each", seconds, limit)
        report("CSV of 300k rows", best(lambda: drain(client, sweep.id), turns=2), 3.0)
        big = client.create_sweep(
            SweepRequest(
                workload="mlp",
                ranks=[1, 2, 4, 8, 16],
                alphas=[float(2**k) for k in range(10)],
                lrs=[1e-4, 2e-4, 4e-4, 8e-4],
                seeds=list(range(PROJECT_RUNS // 200)),
                steps=10,
            )
        )
        report("10,000 runs: a page, sorted", best(lambda: client.runs(sweep=big.id, sort="-alpha")), 0.2)
        report("10,000 runs: a page, filtered", best(lambda: client.runs(sweep=big.id, rank=8, lr=4e-4)), 0.2)
        report("list of sweeps", best(client.sweeps), 0.2)
        store.close()
    print(f"floor, plain sqlite3, a row a point: write {floor_write():.2f} s")


def report(what: str, seconds: float, limit: float) -> None:
    print(f"{what:44s} {seconds:8.3f} s    ≤ {limit:g} s")


def best(call: Callable[[], object], *, turns: int = 5) -> float:
    """Seconds of the fastest of some calls, the first one apart."""
    call()
    times = []
    for _ in range(turns):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def drain(client: Client, sweep_id: str) -> int:
    rows = sum(block.count(b"\n") for block in client.export_csv("history", sweep_id))
    assert rows == RUNS * STEPS * len(METRICS) + 1, rows
    return rows


def write_curves(store: Store) -> float:
    """Seconds to write every curve as a worker does, jobs taken one after another."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    while (
        job := jobs.claim(store, owner="bench", queues=["default"], now=time.time(), lease_s=60)
    ) is not None:
        ids = [run["id"] for run in job.spec["runs"]]
        with store.read() as session:
            curves = CurveWriter(session, ids, token=job.attempt)
        for first in range(0, STEPS, BATCH):
            for metric in METRICS:
                values = rng.normal(1, 0.1, (len(ids), BATCH)).astype(np.float32)
                curves.add(metric, np.arange(first, first + BATCH), values)
            write = partial(curves.write, now=time.time())
            jobs.progress(store, job, now=time.time(), lease_s=60, write=write)
        losses = update(RunRow).where(RunRow.id.in_(ids)).values(final_loss=1.0)
        jobs.finish(store, job, now=time.time(), write=lambda session, losses=losses: session.execute(losses))
    return time.perf_counter() - started


def floor_write() -> float:
    """Seconds to insert the same points as rows, 100 steps of all runs and metrics a transaction."""
    values = np.random.default_rng(0).normal(1, 0.1, (RUNS, len(METRICS), STEPS))
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(Path(folder) / "floor.db")) as store,
    ):
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = NORMAL")
        store.execute("CREATE TABLE points (run, metric, step, value)")
        started = time.perf_counter()
        for first in range(0, STEPS, BATCH):
            rows = [
                (run, metric, step, values[run, metric, step])
                for run in range(RUNS)
                for metric in range(len(METRICS))
                for step in range(first, first + BATCH)
            ]
            with store:
                store.executemany("INSERT INTO points VALUES (?, ?, ?, ?)", rows)
        return time.perf_counter() - started


@contextmanager
def service(home: Path, *, database: str = "") -> Iterator[Client]:
    """The API alone, without workers, on a free port; on SQLite in ``home`` unless a database is named."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "LORA_ALPHA_HOME": str(home), "LORA_ALPHA_DATABASE_URL": database}
    store = open_store(database or Settings(home=home).database)
    store.migrate()
    store.close()
    process = subprocess.Popen([sys.executable, "-m", "command_line", "api", "--port", port], env=environment)
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            while True:
                try:
                    client.health()
                    break
                except ServiceUnreachable:
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait()
