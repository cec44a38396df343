"""Jobs: enqueue, claim, fence, finish, reconcile. The rules that nothing is lost or done twice rest on.

- A job is claimed by one conditional update that also raises ``attempt``, the fencing token.
- Whoever works on a job begins each write transaction with ``fence``: an update on (id, attempt, running).
  It renews the lease and tells of a cancel or pause. No row updated means the job is somebody else's now:
  ``LeaseLost``, and the transaction rolls back.
- Metric points, checkpoint pointer, progress and run states change inside such a transaction only.
- The claim deletes points after the checkpoint, so a resumed attempt writes each point once.
- Locks are taken in one order, jobs before runs before sweeps, or PostgreSQL would meet deadlocks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, Select, Update, case, func, or_, select, update
from sqlalchemy.orm import Session

from backend.store.engines import Store
from backend.store.metrics import drop_after_step
from backend.store.tables import JobRow, ProbeRow, RunRow
from backend.store.workers import idle_slots
from lora_alpha.errors import LeaseLost

UNFINISHED = ("queued", "running", "paused")


@dataclass(frozen=True)
class ClaimedJob:
    """A job in the hands of one worker; ``attempt`` is its fencing token."""

    id: str
    kind: str
    sweep_id: str | None
    attempt: int
    spec: dict[str, Any]
    checkpoint: str | None
    checkpoint_step: int


@dataclass(frozen=True)
class Signals:
    """What the user wants of a running job."""

    cancel: bool
    pause: bool


@dataclass(frozen=True)
class Reconciled:
    """What one round of ``reconcile`` changed."""

    requeued: int
    lost: int
    cancelled: int
    touched_sweeps: tuple[str, ...]


def new_id() -> str:
    """A short unique id."""
    return uuid.uuid4().hex[:12]


def enqueue(
    session: Session,
    *,
    kind: str,
    spec: dict[str, Any],
    now: float,
    job_id: str | None = None,
    key: str | None = None,
    queue: str = "default",
    sweep_id: str | None = None,
    priority: int = 0,
    max_attempts: int = 5,
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


def claim_job(
    store: Store, *, owner: str, queues: Sequence[str], now: float, lease_s: float
) -> ClaimedJob | None:
    """Take the best queued job of ``queues``, or None if there is none.

    Marks the job and its unfinished runs running and drops points that the attempt before wrote after its
    last checkpoint.
    """
    best = (
        select(JobRow.id)
        .where(JobRow.state == "queued", JobRow.cancel.is_(False), JobRow.queue.in_(queues))
        .order_by(JobRow.priority.desc(), JobRow.created, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # compiled away on SQLite, whose writers are serial anyway
        .scalar_subquery()
    )
    claim = (
        update(JobRow)
        .where(JobRow.id == best, JobRow.state == "queued")
        .values(
            state="running",
            attempt=JobRow.attempt + 1,
            owner=owner,
            lease_until=now + lease_s,
            started=func.coalesce(JobRow.started, now),
            message="starting",
        )
        .returning(JobRow)
        .execution_options(synchronize_session=False)
    )
    with store.write() as session:
        job = session.scalars(claim).first()
        if job is None:
            return None
        claimed = ClaimedJob(
            id=job.id,
            kind=job.kind,
            sweep_id=job.sweep_id,
            attempt=job.attempt,
            spec=job.spec,
            checkpoint=job.checkpoint,
            checkpoint_step=job.checkpoint_step,
        )
        _start_parts(session, claimed, now)
        return claimed


def fence(
    session: Session,
    job: ClaimedJob,
    *,
    now: float,
    lease_s: float,
    progress: float | None = None,
    message: str | None = None,
    checkpoint: tuple[str, int] | None = None,
) -> Signals:
    """Prove that the job is still ours, renew its lease, note progress; first thing in every write.

    Raises:
        LeaseLost: If the job has another attempt or is no longer running.
    """
    values: dict[str, Any] = {"lease_until": now + lease_s}
    if progress is not None:
        values["progress"] = progress
    if message is not None:
        values["message"] = message
    if checkpoint is not None:
        values["checkpoint"], values["checkpoint_step"] = checkpoint
    row = session.execute(_owned(job).values(**values).returning(JobRow.cancel, JobRow.pause)).first()
    if row is None:
        raise LeaseLost(f"job {job.id} attempt {job.attempt} belongs to another worker now")
    return Signals(cancel=row.cancel, pause=row.pause)


def finish_job(
    session: Session, job: ClaimedJob, *, now: float, result: dict[str, Any] | None = None
) -> None:
    """Fenced: the job is done. The caller sets its runs' summaries in the same transaction."""
    _end(session, job, state="finished", now=now, progress=1.0, result=result, message="", error=None)


def fail_job(session: Session, job: ClaimedJob, *, now: float, error: str, log_tail: str) -> None:
    """Fenced: the job's code raised; its unfinished runs fail with the same reason."""
    _end(session, job, state="failed", now=now, error=error, log_tail=log_tail)
    _end_parts(session, job.id, state="failed", now=now, error=error)


def cancel_running_job(session: Session, job: ClaimedJob, *, now: float) -> None:
    """Fenced: the runner has stopped because the user cancelled."""
    _end(session, job, state="cancelled", now=now, message="cancelled")
    _end_parts(session, job.id, state="cancelled", now=now, error=None)


def release_job(session: Session, job: ClaimedJob) -> None:
    """Fenced: give the job back at its checkpoint; the attempt does not count against the job.

    It is paused if that is what the user wants *now*: a resume may have come since the runner last looked.
    """
    _end(
        session,
        job,
        state=case((JobRow.pause, "paused"), else_="queued"),
        now=None,
        owner=None,
        lease_until=None,
        rung=None,
        message=case((JobRow.pause, "paused"), else_="released"),
        max_attempts=JobRow.max_attempts + 1,
    )
    session.execute(
        update(RunRow).where(RunRow.job_id == job.id, RunRow.state == "running").values(state="queued")
    )
    session.execute(
        update(ProbeRow).where(ProbeRow.id == job.id, ProbeRow.state == "running").values(state="queued")
    )


def hand_back(session: Session, job: ClaimedJob, *, now: float, error: str, log_tail: str) -> None:
    """Fenced: the runner died. Queue the job again, or give it up when its attempts are used."""
    fence(session, job, now=now, lease_s=0.0)
    session.execute(_owned(job).values(log_tail=log_tail, error=error))
    _expire(session, session.get_one(JobRow, job.id), now=now)


def request_cancel(session: Session, job_ids: Sequence[str]) -> None:
    """Ask running jobs to stop; queued and paused ones are cancelled by ``reconcile`` or right here."""
    session.execute(
        update(JobRow).where(JobRow.id.in_(job_ids), JobRow.state.in_(UNFINISHED)).values(cancel=True)
    )


def cancel_waiting(session: Session, *, now: float, sweep_id: str | None = None) -> list[JobRow]:
    """Cancel jobs that are flagged and not running; returns them."""
    query = select(JobRow).where(JobRow.cancel.is_(True), JobRow.state.in_(("queued", "paused")))
    if sweep_id is not None:
        query = query.where(JobRow.sweep_id == sweep_id)
    jobs = list(session.scalars(query.with_for_update(skip_locked=True)))
    for job in jobs:
        job.state, job.finished = "cancelled", now
        _end_parts(session, job.id, state="cancelled", now=now, error=None)
    session.flush()
    return jobs


def reconcile(
    store: Store, *, now: float, refresh: Callable[[Session, str], object] | None = None
) -> Reconciled:
    """Put right what nobody else will: expired leases, cancels of waiting jobs.

    Args:
        store: The database.
        now: Leases that ended before are expired.
        refresh: Called for each sweep whose jobs changed, in the same transaction, so that no crash can
            leave a sweep with a state that its runs no longer have.
    """
    with store.write() as session:
        expired = list(
            session.scalars(
                select(JobRow)
                .where(JobRow.state == "running", JobRow.lease_until < now)
                .with_for_update(skip_locked=True)
            )
        )
        states = [_expire(session, job, now=now) for job in expired]
        cancelled = cancel_waiting(session, now=now)
        sweeps = sorted({job.sweep_id for job in [*expired, *cancelled] if job.sweep_id})
        if refresh is not None:
            for sweep_id in sweeps:
                refresh(session, sweep_id)
    return Reconciled(
        requeued=states.count("queued"),
        lost=states.count("lost"),
        cancelled=len(cancelled) + states.count("cancelled"),
        touched_sweeps=tuple(sweeps),
    )


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


def _start_parts(session: Session, job: ClaimedJob, now: float) -> None:
    runs = list(session.scalars(select(RunRow).where(RunRow.job_id == job.id, RunRow.state == "queued")))
    for run in runs:
        run.state = "running"
        run.started = run.started or now
        run.step = job.checkpoint_step
    if runs and job.attempt > 1:
        # A checkpoint at step 0 does not exist: everything is written again, the point at step 0 included.
        drop_after_step(session, [run.id for run in runs], job.checkpoint_step or -1)
    for probe in session.scalars(select(ProbeRow).where(ProbeRow.id == job.id)):
        probe.state, probe.started = "running", probe.started or now
    session.flush()


def _expire(session: Session, job: JobRow, *, now: float) -> str:
    """A running job without a living owner: queued again, cancelled, or lost."""
    job.owner = job.lease_until = job.rung = None
    if job.cancel:
        job.state, job.finished = "cancelled", now
        _end_parts(session, job.id, state="cancelled", now=now, error=None)
    elif job.attempt >= job.max_attempts:
        job.state, job.finished = "lost", now
        job.error = job.error or f"its worker died {job.attempt} times without finishing"
        _end_parts(session, job.id, state="lost", now=now, error=job.error)
    else:
        job.state = "queued"
        session.execute(
            update(RunRow).where(RunRow.job_id == job.id, RunRow.state == "running").values(state="queued")
        )
        session.execute(
            update(ProbeRow).where(ProbeRow.id == job.id, ProbeRow.state == "running").values(state="queued")
        )
    session.flush()
    return job.state


def _owned(job: ClaimedJob) -> Update:
    return (
        update(JobRow)
        .where(JobRow.id == job.id, JobRow.attempt == job.attempt, JobRow.state == "running")
        .execution_options(synchronize_session=False)
    )


def _end(session: Session, job: ClaimedJob, *, state: Any, now: float | None, **values: Any) -> None:
    result = session.execute(_owned(job).values(state=state, finished=now, **values))
    assert isinstance(result, CursorResult)
    if result.rowcount == 0:
        raise LeaseLost(f"job {job.id} attempt {job.attempt} belongs to another worker now")


def _end_parts(session: Session, job_id: str, *, state: str, now: float, error: str | None) -> None:
    """End the unfinished runs and the probe of a job."""
    for table in (RunRow, ProbeRow):
        key = table.job_id if table is RunRow else table.id
        session.execute(
            update(table)
            .where(key == job_id, table.state.in_(("queued", "running")))
            .values(state=state, finished=now, error=error)
            .execution_options(synchronize_session=False)
        )
