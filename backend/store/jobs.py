"""Queries on the queue of jobs: insert, and whom to wake. Transitions are in ``backend/services/jobs``."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from backend.store.engines import Store
from backend.store.tables import JobRow
from backend.store.workers import idle_slots

UNFINISHED = ("queued", "running", "paused")


def new_id() -> str:
    """A short unique id."""
    return uuid.uuid4().hex[:12]


def enqueue(
    session: Session,
    *,
    kind: str,
    spec: dict[str, Any],
    now: float,
    max_attempts: int,
    job_id: str | None = None,
    key: str | None = None,
    queue: str = "default",
    sweep_id: str | None = None,
    priority: int = 0,
) -> str:
    """Insert a queued job and return its id; ring after the commit."""
    job_id = job_id or new_id()
    session.add(
        JobRow(
            id=job_id,
            key=key or job_id,
            kind=kind,
            queue=queue,
            sweep_id=sweep_id,
            spec=spec,
            priority=priority,
            state="queued",
            max_attempts=max_attempts,
            created=now,
        )
    )
    session.flush()
    return job_id


def jobs_to_ring(store: Store, *, now: float, ring_after_s: float, idle_since: float) -> list[str]:
    """Queues that need a bell: one entry per queued job not rung lately, marked as rung.

    A queue gets at most as many as it has idle workers with a sign of life after ``idle_since``: a busy one
    claims its next job by itself, and messages that nobody takes would pile up.
    """
    with store.read() as session:
        if session.scalar(_unrung(now - ring_after_s).with_only_columns(JobRow.id).limit(1)) is None:
            return []  # the usual case takes no write lock
        slots = idle_slots(session, since=idle_since)
    if not slots:
        return []
    rung: list[str] = []
    with store.write() as session:
        for queue, count in sorted(slots.items()):
            query = _unrung(now - ring_after_s).where(JobRow.queue == queue).limit(count)
            for job in session.scalars(query.with_for_update(skip_locked=True)):
                job.rung = now
                rung.append(queue)
    return rung


def _unrung(before: float) -> Select[JobRow]:
    return (
        select(JobRow)
        .where(JobRow.state == "queued", or_(JobRow.rung.is_(None), JobRow.rung < before))
        .order_by(JobRow.priority.desc(), JobRow.created)
    )
