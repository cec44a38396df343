"""Laws of a sweep of 10,080 runs through our HTTP API, and whether reading them holds up a worker's write.

7 ranks × 12 α × 3 η × 40 seeds with 24 evaluations each, planted: lowest at α = 60·r^p, where p rises from 0
to ½ over the steps. The rows are inserted directly; the service is a process of its own (uvicorn, as
``lora-alpha api`` starts it). On SQLite, and on PostgreSQL where ``LORA_ALPHA_BENCH_POSTGRES`` names a server
(``postgresql://user@host:port/database``): a database of its own is made there and dropped afterwards.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from sqlalchemy import create_engine, make_url, select, text, update
from sqlalchemy.orm import Session

from backend.services import jobs
from backend.settings import Settings
from backend.store.engines import Store, open_store
from backend.store.metrics import CurveWriter
from backend.store.tables import JobRow, RunRow, SweepRow
from benchmarks.store import best, service
from lora_alpha.request import SweepRequest
from lora_alpha.wire.client import Client

RANKS, ALPHAS, LRS, SEEDS = [2**k for k in range(7)], [2.0**k for k in range(2, 14)], [1e-4, 2e-4, 4e-4], 40
STEPS, EVALUATIONS = 600, 24
ANSWERS = {"law": 1.0, "cells": 1.0, "equivalence": 1.0, "collapse": 1.0, "horizon": None}
WRITES_S = 0.02  # between two writes of the worker
BUSY_S = 6.0
SLOW_S = 2.0  # an answer that takes longer is not asked for again and again


def main() -> None:
    """Print each figure beside what is wanted, on every database that is there."""
    with tempfile.TemporaryDirectory() as home:
        measure(Path(home), "", "SQLite")
    if server := os.environ.get("LORA_ALPHA_BENCH_POSTGRES"):
        with tempfile.TemporaryDirectory() as home, own_database(server) as url:
            measure(Path(home), url, "PostgreSQL")


def measure(home: Path, database: str, name: str) -> None:
    """Every answer's seconds and size, then a worker's writes, alone and while laws are asked for."""
    with service(home, database=database) as client:
        store = open_store(database or Settings(home=home).database)
        sweep_id = plant(client, store)
        for what, limit in ANSWERS.items():
            report(client, name, what, sweep_id, limit)
        alone, beside = writes(store, client, sweep_id)
        for when, times in (("nobody reads", alone), ("two clients ask for laws", beside)):
            print(
                f"{name + ': a write while ' + when:48s} median {1e3 * statistics.median(times):6.1f} ms, "
                f"longest {1e3 * max(times):6.1f} ms of {len(times)}"
            )
        store.close()


def report(client: Client, name: str, what: str, sweep_id: str, limit: float | None) -> None:
    """Seconds until an answer is there and until the client has read it, fastest of a few; its size."""
    with httpx.Client(base_url=f"{client.base_url}/api", timeout=60) as http:
        started = time.perf_counter()
        size = len(http.get(f"/sweeps/{sweep_id}/{what}").raise_for_status().content)
        turns = 1 if time.perf_counter() - started > SLOW_S else 4
        seconds = best(partial(http.get, f"/sweeps/{sweep_id}/{what}"), turns=turns)
    read = best(partial(getattr(client, what), sweep_id), turns=turns)
    wanted = "" if limit is None else f"   ≤ {limit:g} s"
    print(f"{name + ': GET /' + what:48s} {seconds:7.3f} s, read {read:7.3f} s, {size / 1e6:5.2f} MB{wanted}")


def plant(client: Client, store: Store) -> str:
    """Id of the finished sweep; behind it waits a small one for the worker whose writes are timed."""
    axes = {"ranks": RANKS, "alphas": ALPHAS, "lrs": LRS, "seeds": list(range(SEEDS))}
    sweep = client.create_sweep(SweepRequest(workload="mlp", steps=STEPS, lr_schedule="constant", **axes))
    rng = np.random.default_rng(0)
    with store.write() as session:
        rows = session.execute(
            select(RunRow.id, RunRow.rank, RunRow.alpha, RunRow.lr).where(RunRow.sweep_id == sweep.id)
        ).all()
        _finish(session, [row.id for row in rows], _losses(rows, rng))
        session.execute(update(JobRow).where(JobRow.sweep_id == sweep.id).values(state="finished"))
        session.execute(update(SweepRow).where(SweepRow.id == sweep.id).values(state="finished"))
    client.create_sweep(
        SweepRequest(workload="mlp", ranks=[4], alphas=[8.0], seeds=list(range(32)), steps=100_000)
    )
    return sweep.id


def _losses(rows: list, rng: np.random.Generator) -> np.ndarray:
    """(runs, evaluations)."""
    rank, alpha, lr = (
        np.array([getattr(row, name) for row in rows])[:, None] for name in ("rank", "alpha", "lr")
    )
    share = np.arange(1, EVALUATIONS + 1) / EVALUATIONS
    best_alpha = 60 * rank ** (0.5 * share) * (2e-4 / lr) ** 0.5
    away = np.log2(alpha / best_alpha)
    return 1 + np.exp(-3 * share) + 0.02 * away**2 + rng.normal(0, 0.01, away.shape)


def _finish(session: Session, ids: list[str], losses: np.ndarray) -> None:
    steps = STEPS // EVALUATIONS * np.arange(1, EVALUATIONS + 1)
    curves = CurveWriter(session, ids, token=1)
    curves.add("eval_loss", steps, losses)
    curves.write(session, now=time.time())
    done = {"state": "finished", "step": STEPS, "summary": {}}
    session.execute(
        update(RunRow),
        [
            {"id": i, "final_loss": float(row[-1]), "best_loss": float(row.min()), **done}
            for i, row in zip(ids, losses, strict=True)
        ],
    )


def writes(store: Store, client: Client, sweep_id: str) -> tuple[list[float], list[float]]:
    """Seconds of each of a worker's write transactions: alone, and while two clients ask for laws."""
    job = jobs.claim(store, owner="bench", queues=["default"], now=time.time(), lease_s=600)
    assert job is not None
    ids = [run["id"] for run in job.spec["runs"]]
    with store.read() as session:
        curves = CurveWriter(session, ids, token=job.attempt)
    first = 0

    def for_a_while() -> list[float]:
        nonlocal first
        times, until = [], time.monotonic() + BUSY_S
        while time.monotonic() < until:
            curves.add("eval_loss", np.arange(first, first + 1), np.ones((len(ids), 1)))
            first += 1
            started = time.perf_counter()
            jobs.progress(
                store, job, now=time.time(), lease_s=600, write=partial(curves.write, now=time.time())
            )
            times.append(time.perf_counter() - started)
            time.sleep(WRITES_S)
        return times

    alone = for_a_while()
    over = threading.Event()

    def ask() -> None:
        with Client(client.base_url) as own:
            while not over.is_set():
                own.law(sweep_id)
                own.horizon(sweep_id, fixed=LRS[1])

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        beside = for_a_while()
    finally:
        over.set()
        for reader in readers:
            reader.join()
    return alone, beside


@contextmanager
def own_database(server: str) -> Iterator[str]:
    """The address of a new database on a PostgreSQL server, dropped afterwards."""
    name = f"lora_alpha_bench_{uuid.uuid4().hex[:8]}"
    address = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield address.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
