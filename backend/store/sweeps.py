"""Queries on sweeps and their runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from backend.store.tables import RunRow, SweepRow, WorkerRow
from lora_alpha.errors import NotFound
from lora_alpha.spec import Configuration
from lora_alpha.wire.sweeps import RunCounts

# ``spec["source"]`` of a sweep whose runs are trained elsewhere.
INGESTED = "ingest"


# What the analysis reads of a run: a row of these columns is as good as a ``RunRow``, at half the cost.
COLUMNS = (
    *(RunRow.id, RunRow.state, RunRow.diverged, RunRow.step, RunRow.configuration, RunRow.summary),
    *(RunRow.method, RunRow.rank, RunRow.alpha, RunRow.scale, RunRow.lr, RunRow.seed),
    *(RunRow.final_loss, RunRow.best_loss, RunRow.forgetting),
)
AnyRun = RunRow | Row[Any]


def find_sweep(session: Session, sweep_id: str) -> SweepRow:
    """The row of a sweep.

    Raises:
        NotFound: If there is none.
    """
    row = session.get(SweepRow, sweep_id)
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return row


def lock_sweep(session: Session, sweep_id: str) -> SweepRow | None:
    """The row of a sweep as it is now, locked until the transaction ends.

    Rows that refer to it may still be inserted: two workers that each add a probe and then come here would
    otherwise wait for each other.
    """
    return session.get(SweepRow, sweep_id, with_for_update={"key_share": True}, populate_existing=True)


def find_run(session: Session, run_id: str) -> RunRow:
    """The row of a run.

    Raises:
        NotFound: If there is none.
    """
    row = session.get(RunRow, run_id)
    if row is None:
        raise NotFound(f"there is no run {run_id!r}")
    return row


def read_runs(session: Session, sweep_id: str) -> Sequence[Row[Any]]:
    """The ``COLUMNS`` of a sweep's runs, in its order."""
    return session.execute(
        select(*COLUMNS).where(RunRow.sweep_id == sweep_id).order_by(RunRow.position)
    ).all()


def runs_in_state(session: Session, sweep_id: str, states: Sequence[str]) -> list[RunRow]:
    """Runs of a sweep in one of these states, in the sweep's order."""
    query = select(RunRow).where(RunRow.sweep_id == sweep_id, RunRow.state.in_(states))
    return list(session.scalars(query.order_by(RunRow.position)))


def next_position(session: Session, sweep_id: str) -> int:
    """The place of the next run of a sweep."""
    last = session.scalar(select(func.max(RunRow.position)).where(RunRow.sweep_id == sweep_id))
    return 0 if last is None else last + 1


def existing_configurations(session: Session, sweep_id: str) -> set[str]:
    """The configurations that a sweep has runs for, as JSON."""
    stored = session.scalars(select(RunRow.configuration).where(RunRow.sweep_id == sweep_id))
    return {Configuration.model_validate(configuration).model_dump_json() for configuration in stored}


def run_counts(session: Session, sweep_ids: Sequence[str]) -> dict[str, RunCounts]:
    """Runs by state for each sweep; ``diverged`` are finished ones."""
    query = (
        select(RunRow.sweep_id, RunRow.state, RunRow.diverged, func.count())
        .where(RunRow.sweep_id.in_(sweep_ids))
        .group_by(RunRow.sweep_id, RunRow.state, RunRow.diverged)
    )
    tallies: dict[str, dict[str, int]] = {sweep_id: {} for sweep_id in sweep_ids}
    for sweep_id, state, diverged, count in session.execute(query):
        tally = tallies[sweep_id]
        tally[state] = tally.get(state, 0) + count
        tally["total"] = tally.get("total", 0) + count
        if diverged and state == "finished":
            tally["diverged"] = tally.get("diverged", 0) + count
    return {sweep_id: RunCounts(**tally) for sweep_id, tally in tallies.items()}


def alive_workers(session: Session, *, since: float) -> Sequence[WorkerRow]:
    """Workers that gave a sign of life after ``since`` and have not left."""
    query = select(WorkerRow).where(WorkerRow.state != "gone", WorkerRow.heartbeat > since)
    return session.scalars(query).all()
