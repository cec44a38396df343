"""From runs to queued jobs: a pack is one job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from backend.store.jobs import enqueue, new_id
from backend.store.sweeps import alive_workers, next_position
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import plan_packs
from lora_alpha.spec import Configuration, RunSpec, SweepSpec

# A worker without a sign of life for this long does not count when packs are planned.
ALIVE_S = 60.0
NOBODY = Fleet(num_workers=0)


def fleet_of(session: Session, *, expected: Fleet = NOBODY, now: float) -> Fleet:
    """Workers that plans may count on: the living, and at least as many as are ``expected``, at least 1."""
    alive = alive_workers(session, since=now - ALIVE_S)
    sharing = Counter((worker.host, worker.device) for worker in alive)
    memory = [worker.gpu_bytes // sharing[worker.host, worker.device] for worker in alive]
    if len(alive) < expected.num_workers:
        memory.append(expected.gpu_bytes)
    return Fleet(max(1, expected.num_workers, len(alive)), gpu_bytes=min(memory, default=0))


def add_runs(
    session: Session,
    sweep: SweepRow,
    runs: Sequence[RunSpec],
    *,
    fleet: Fleet,
    max_attempts: int,
    now: float,
) -> None:
    """Insert runs after those that the sweep has, and the packs that will train them."""
    first = next_position(session, sweep.id)
    rows = [
        RunRow(
            id=new_id(),
            sweep_id=sweep.id,
            position=first + index,
            name=run.name,
            state="queued",
            workload=run.train.workload,
            method=run.configuration.method,
            rank=run.configuration.rank,
            alpha=run.configuration.alpha,
            scale=run.configuration.scale,
            lr=run.configuration.lr,
            seed=run.configuration.seed,
            steps=run.train.steps,
            configuration=run.configuration.model_dump(mode="json"),
            created=now,
        )
        for index, run in enumerate(runs)
    ]
    session.add_all(rows)
    session.flush()
    enqueue_packs(session, sweep, rows, fleet=fleet, max_attempts=max_attempts, now=now)


def enqueue_packs(
    session: Session,
    sweep: SweepRow,
    rows: Sequence[RunRow],
    *,
    fleet: Fleet,
    max_attempts: int,
    now: float,
) -> None:
    """Queue runs in new packs; in a paused sweep they wait, paused like the others.

    When they are used up, an adaptive search has to decide anew.
    """
    sweep.refinement_due = sweep.spec.get("search", {}).get("kind") == "adaptive"
    if not rows:
        return
    train = SweepSpec.model_validate(sweep.spec).train
    document = train.model_dump(mode="json")
    configurations = [Configuration.model_validate(row.configuration) for row in rows]
    packs = [[rows[member] for member in pack] for pack in plan_packs(train, configurations, fleet=fleet)]
    queue_packs(session, sweep, packs, document, max_attempts=max_attempts, now=now)


def queue_packs(
    session: Session,
    sweep: SweepRow,
    packs: Sequence[Sequence[RunRow]],
    train: dict[str, Any],
    *,
    max_attempts: int,
    now: float,
) -> None:
    """Queue packs as they are given: one job each, which its runs then belong to."""
    for index, members in enumerate(packs):
        job_id = enqueue(
            session,
            kind="pack",
            sweep_id=sweep.id,
            priority=sweep.priority,
            max_attempts=max_attempts,
            now=now + 1e-6 * index,  # claims follow the plan's order
            spec={
                "train": train,
                "runs": [{"id": row.id, "configuration": row.configuration} for row in members],
            },
        )
        if sweep.intent == "pause":
            session.get_one(JobRow, job_id).state = "paused"
        for row in members:
            row.job_id = job_id
    session.flush()
