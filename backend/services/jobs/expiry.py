"""Transitions that nobody else makes: leases that ran out, cancels of jobs that nobody holds."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from backend.services.jobs.change import Change, open_change
from backend.services.jobs.parts import end_parts, requeue_parts
from backend.store.engines import Store
from backend.store.tables import JobRow


@dataclass(frozen=True)
class Reconciled:
    """How many jobs one round of ``reconcile`` changed."""

    requeued: int
    lost: int
    cancelled: int


def reconcile(store: Store, *, now: float) -> Reconciled:
    """Put right what nobody else will: leases that ended before ``now``, cancels of waiting jobs."""
    with open_change(store, now=now) as change:
        expired = list(
            change.session.scalars(
                select(JobRow)
                .where(JobRow.state == "running", JobRow.lease_until < now)
                .with_for_update(skip_locked=True)
            )
        )
        for job in expired:
            change.touch(job.sweep_id)
        states = [expire(change.session, job, now=now) for job in expired]
        cancelled = cancel_waiting(change)
    return Reconciled(
        requeued=states.count("queued"),
        lost=states.count("lost"),
        cancelled=cancelled + states.count("cancelled"),
    )


def cancel_waiting(change: Change, *conditions: ColumnElement[bool]) -> int:
    """Cancel jobs that are flagged so and that nobody holds, of those that meet ``conditions``."""
    query = select(JobRow).where(JobRow.cancel.is_(True), JobRow.state.in_(("queued", "paused")), *conditions)
    jobs = list(change.session.scalars(query.with_for_update(skip_locked=True)))
    for job in jobs:
        job.state, job.finished = "cancelled", change.now
        end_parts(change.session, job.id, state="cancelled", now=change.now, error=None)
        change.touch(job.sweep_id)
    change.session.flush()
    return len(jobs)


def expire(session: Session, job: JobRow, *, now: float) -> str:
    """A running job without a living owner: queued again, cancelled, or given up as lost."""
    job.owner = job.lease_until = job.rung = None
    if job.cancel:
        job.state, job.finished = "cancelled", now
        end_parts(session, job.id, state="cancelled", now=now, error=None)
    elif job.attempt >= job.max_attempts:
        job.state, job.finished = "lost", now
        job.error = job.error or f"its worker died {job.attempt} times without finishing"
        end_parts(session, job.id, state="lost", now=now, error=job.error)
    else:
        job.state = "queued"
        requeue_parts(session, job.id)
    session.flush()
    return job.state
