"""Worker registrations: who is there, on which queues, and when each last gave a sign of life.

They inform people and the bell; no job's fate rests on them, that is the lease's part.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from backend.store.tables import WorkerRow


def retire_workers(session: Session, *, silent_since: float, forget_before: float) -> None:
    """Mark workers without a sign of life ``gone``; forget those that have long been."""
    found = session.scalar(
        select(WorkerRow.id)
        .where(
            or_(
                WorkerRow.heartbeat < forget_before,
                (WorkerRow.heartbeat < silent_since) & (WorkerRow.state != "gone"),
            )
        )
        .limit(1)
    )
    if found is None:
        return
    silent = update(WorkerRow).where(WorkerRow.heartbeat < silent_since)
    session.execute(silent.values(state="gone", job_id=None))
    session.execute(delete(WorkerRow).where(WorkerRow.heartbeat < forget_before))


def idle_slots(session: Session, *, since: float) -> Counter[str]:
    """Queue → idle workers with a sign of life after ``since``."""
    idle = select(WorkerRow.queue).where(WorkerRow.state == "idle", WorkerRow.heartbeat > since)
    return Counter(queue for queues in session.scalars(idle) for queue in queues.split(","))
