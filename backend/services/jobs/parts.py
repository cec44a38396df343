"""What a job stands for: its runs, or its probe. They go where their job goes, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from backend.store.metrics import drop_after_step
from backend.store.tables import ProbeRow, RunRow


def start_parts(session: Session, job_id: str, *, attempt: int, checkpoint_step: int, now: float) -> None:
    """Mark the queued runs or the probe of a job running, at its checkpoint."""
    runs = list(session.scalars(select(RunRow).where(RunRow.job_id == job_id, RunRow.state == "queued")))
    for run in runs:
        run.state = "running"
        run.started = run.started or now
        run.step = checkpoint_step
    if runs and attempt > 1:
        # A checkpoint at step 0 does not exist: everything is written again, the point at step 0 included.
        drop_after_step(session, [run.id for run in runs], checkpoint_step or -1)
    for probe in session.scalars(select(ProbeRow).where(ProbeRow.id == job_id)):
        probe.state, probe.started = "running", probe.started or now
    session.flush()


def requeue_parts(session: Session, job_id: str) -> None:
    """The running runs or the probe of a job wait again."""
    for table, key in ((RunRow, RunRow.job_id), (ProbeRow, ProbeRow.id)):
        session.execute(update(table).where(key == job_id, table.state == "running").values(state="queued"))


def end_parts(session: Session, job_id: str, *, state: str, now: float, error: str | None) -> None:
    """End the unfinished runs or the probe of a job."""
    for table, key in ((RunRow, RunRow.job_id), (ProbeRow, ProbeRow.id)):
        session.execute(
            update(table)
            .where(key == job_id, table.state.in_(("queued", "running")))
            .values(state=state, finished=now, error=error)
            .execution_options(synchronize_session=False)
        )


def start_over(session: Session, runs: Sequence[RunRow]) -> None:
    """Make runs what they were before they began; what they had written goes."""
    drop_after_step(session, [run.id for run in runs], -1)
    for run in runs:
        run.state, run.error, run.step, run.started, run.finished = "queued", None, 0, None, None
        run.diverged, run.final_loss, run.best_loss, run.best_step = False, None, None, None
        run.forgetting, run.summary, run.adapter = None, {}, None
    session.flush()
