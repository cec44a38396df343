"""Queued jobs, and every transition of them as a call: what tests of the jobs room begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.services import jobs
from backend.services.jobs import ClaimedJob
from backend.store.engines import Store
from backend.store.jobs import enqueue
from backend.store.metrics import CurveWriter
from backend.store.tables import Base, JobRow, ProbeRow, RunRow, SweepRow

NOW = 1_800_000_000.0
LEASE_S = 15.0
EXPIRED = NOW + LEASE_S + 1


def add_pack(
    store: Store, name: str = "pack", *, num_runs: int = 2, sweep: str = "sweep", **job: Any
) -> None:
    """A queued pack with the runs ``name-0``, ``name-1``, …; its sweep, if it is the first."""
    ids = [f"{name}-{index}" for index in range(num_runs)]
    with store.write() as session:
        if session.get(SweepRow, sweep) is None:
            session.add(SweepRow(id=sweep, name="", state="queued", workload="mlp", spec={}, created=NOW))
            session.flush()
        spec = {"train": {"steps": 100}, "runs": [{"id": run_id, "configuration": {}} for run_id in ids]}
        given = {"kind": "pack", "spec": spec, "now": NOW, "max_attempts": 3, "sweep_id": sweep}
        enqueue(session, job_id=name, **{**given, **job})
        position = len(session.scalars(select(RunRow.id).where(RunRow.sweep_id == sweep)).all())
        session.add_all(
            RunRow(
                id=run_id,
                sweep_id=sweep,
                position=position + index,
                name=run_id,
                state="queued",
                workload="mlp",
                method="lora",
                lr=1e-3,
                seed=index,
                steps=100,
                configuration={},
                job_id=name,
                created=NOW,
            )
            for index, run_id in enumerate(ids)
        )


def add_probe(store: Store) -> None:
    with store.write() as session:
        enqueue(session, job_id="probe", kind="probe", spec={}, now=NOW, max_attempts=3)
        session.add(ProbeRow(id="probe", kind="top", space="lora", state="queued", spec={}, created=NOW))


def claim(store: Store, *, now: float = NOW, owner: str = "one") -> ClaimedJob:
    job = jobs.claim(store, owner=owner, queues=["default"], now=now, lease_s=LEASE_S)
    assert job is not None
    return job


def note(session: Session) -> None:
    """What a runner writes: a point of each run, and a figure."""
    curves = CurveWriter(session, ["pack-0", "pack-1"], token=1)
    curves.add("train_loss", np.array([50]), np.array([[1.0], [2.0]]))
    curves.write(session, now=NOW)
    session.get_one(RunRow, "pack-0").final_loss = 0.5


def in_sweep(change: Callable[..., None]) -> Callable[[Store], None]:
    def ask(store: Store) -> None:
        with jobs.open_change(store, now=NOW) as opened:
            change(opened, opened.sweep("sweep"))

    return ask


Held = Callable[[Store, ClaimedJob], object]
HELD: dict[str, Held] = {
    "renew": lambda store, job: jobs.renew(store, job, now=NOW, lease_s=LEASE_S),
    "progress": lambda store, job: jobs.progress(
        store, job, now=NOW, lease_s=LEASE_S, share=0.5, message="half", write=note
    ),
    "checkpoint": lambda store, job: jobs.progress(
        store, job, now=NOW, lease_s=LEASE_S, checkpoint=("50.pt", 50), write=note
    ),
    "finish": lambda store, job: jobs.finish(store, job, now=NOW, result={"a": 1}, write=note),
    "fail": lambda store, job: jobs.fail(store, job, now=NOW, error="it broke", log_tail="…"),
    "split": lambda store, job: jobs.split(store, job, now=NOW, error="too large", log_tail="…"),
    "cancel": lambda store, job: jobs.cancel(store, job, now=NOW),
    "release": lambda store, job: jobs.release(store, job, now=NOW),
    "hand_back": lambda store, job: jobs.hand_back(store, job, now=NOW, error="killed", log_tail="…"),
}
ASKED: dict[str, Callable[[Store], object]] = {
    "pause": in_sweep(jobs.pause_sweep),
    "resume": in_sweep(jobs.resume_sweep),
    "stop": in_sweep(jobs.stop_sweep),
    "cancel_sweep": in_sweep(jobs.cancel_sweep),
    "request_cancel": lambda store: jobs.request_cancel(store, "pack", now=NOW),
    "reconcile": lambda store: jobs.reconcile(store, now=EXPIRED),
}


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with store.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }


def states(store: Store) -> tuple[str, set[str], str]:
    """State of the pack, of its runs, and of the sweep."""
    with store.read() as session:
        runs = session.scalars(select(RunRow.state).where(RunRow.sweep_id == "sweep"))
        return session.get_one(JobRow, "pack").state, set(runs), session.get_one(SweepRow, "sweep").state


def job_row(store: Store, job_id: str = "pack") -> JobRow:
    with store.read() as session:
        return session.get_one(JobRow, job_id)
