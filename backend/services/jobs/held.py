"""Transitions by the worker that holds a job. Each is fenced: it counts only under the newest attempt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from backend.services.jobs.change import open_change
from backend.services.jobs.expiry import expire
from backend.services.jobs.parts import end_parts, requeue_parts, start_over, start_parts
from backend.services.packs import queue_packs
from backend.store.engines import Store
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.errors import LeaseLost

Write = Callable[[Session], None]


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


def claim(
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
    take = (
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
    with open_change(store, now=now) as change:
        job = change.session.scalars(take).first()
        if job is None:
            return None
        start_parts(change.session, job.id, attempt=job.attempt, checkpoint_step=job.checkpoint_step, now=now)
        change.touch(job.sweep_id)
        return ClaimedJob(
            id=job.id,
            kind=job.kind,
            sweep_id=job.sweep_id,
            attempt=job.attempt,
            spec=job.spec,
            checkpoint=job.checkpoint,
            checkpoint_step=job.checkpoint_step,
        )


def renew(store: Store, job: ClaimedJob, *, now: float, lease_s: float) -> Signals:
    """Renew the lease and hear what the user wants; the job goes on whatever that is.

    Raises:
        LeaseLost: If the job has another attempt or is no longer running, as in all that follows.
    """
    with store.write() as session:
        return _fence(session, job, lease_until=now + lease_s)


def progress(
    store: Store,
    job: ClaimedJob,
    *,
    now: float,
    lease_s: float,
    write: Write | None = None,
    share: float | None = None,
    message: str | None = None,
    checkpoint: tuple[str, int] | None = None,
) -> Signals:
    """Renew the lease and keep what was done since; a job whose user cancelled ends here.

    Args:
        store: The database.
        job: The job as it was claimed.
        now: The time.
        lease_s: Seconds for which the lease is renewed.
        write: Writes points and figures in the same transaction.
        share: How much of the job is done, 0 … 1.
        message: What the job is doing.
        checkpoint: Its file, relative to home, and its step: where the next attempt would go on.

    Returns:
        What the user wants. After a ``cancel`` the job and its runs are cancelled.
    """
    values: dict[str, Any] = {"progress": share, "message": message}
    if checkpoint is not None:
        values["checkpoint"], values["checkpoint_step"] = checkpoint
    with open_change(store, now=now) as change:
        given = {name: value for name, value in values.items() if value is not None}
        signals = _fence(change.session, job, lease_until=now + lease_s, **given)
        if write is not None:
            write(change.session)
        if signals.cancel:
            _end(change.session, job, state="cancelled", finished=now, message="cancelled")
            end_parts(change.session, job.id, state="cancelled", now=now, error=None)
            change.touch(job.sweep_id)
        return signals


def finish(
    store: Store,
    job: ClaimedJob,
    *,
    now: float,
    write: Write | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    """The job ran to its end: so did its runs or its probe, whose figures ``write`` stores."""
    with open_change(store, now=now) as change:
        values = {"progress": 1.0, "result": result, "message": "", "error": None}
        _end(change.session, job, state="finished", finished=now, **values)
        if write is not None:
            write(change.session)
        end_parts(change.session, job.id, state="finished", now=now, error=None)
        change.touch(job.sweep_id)


def fail(store: Store, job: ClaimedJob, *, now: float, error: str, log_tail: str) -> None:
    """The job's code raised; its unfinished runs fail with the same reason."""
    with open_change(store, now=now) as change:
        _end(change.session, job, state="failed", finished=now, error=error, log_tail=log_tail)
        end_parts(change.session, job.id, state="failed", now=now, error=error)
        change.touch(job.sweep_id)


def split(store: Store, job: ClaimedJob, *, now: float, error: str, log_tail: str) -> bool:
    """The pack did not fit into memory: its runs start over in two packs of half its size; it has failed.

    Returns:
        False, and nothing done, where the job is no pack or has a single run.
    """
    members = job.spec["runs"] if job.kind == "pack" else []
    if len(members) < 2:
        return False
    with open_change(store, now=now) as change:
        session = change.session
        assert job.sweep_id is not None, "a pack belongs to a sweep"
        _end(session, job, state="failed", finished=now, error=error, log_tail=log_tail)
        rows = {row.id: row for row in session.scalars(select(RunRow).where(RunRow.job_id == job.id))}
        runs = [rows[member["id"]] for member in members]
        start_over(session, runs)
        half = (len(runs) + 1) // 2
        queue_packs(
            session,
            session.get_one(SweepRow, job.sweep_id),
            [runs[:half], runs[half:]],
            job.spec["train"],
            max_attempts=session.get_one(JobRow, job.id).max_attempts,
            now=now,
        )
        change.touch(job.sweep_id)
        return True


def cancel(store: Store, job: ClaimedJob, *, now: float) -> None:
    """The runner was stopped because the user cancelled."""
    with open_change(store, now=now) as change:
        _end(change.session, job, state="cancelled", finished=now, message="cancelled")
        end_parts(change.session, job.id, state="cancelled", now=now, error=None)
        change.touch(job.sweep_id)


def release(store: Store, job: ClaimedJob, *, now: float) -> str:
    """Give the job back at its checkpoint; the attempt does not count against the job.

    Returns:
        ``paused`` if that is what the user wants *now* (a resume may have come since the runner last looked),
        else ``queued``.
    """
    with open_change(store, now=now) as change:
        state = _end(
            change.session,
            job,
            state=case((JobRow.pause, "paused"), else_="queued"),
            message=case((JobRow.pause, "paused"), else_="released"),
            owner=None,
            lease_until=None,
            rung=None,
            max_attempts=JobRow.max_attempts + 1,
        )
        requeue_parts(change.session, job.id)
        change.touch(job.sweep_id)
        return state


def hand_back(store: Store, job: ClaimedJob, *, now: float, error: str, log_tail: str) -> str:
    """The runner died. Queue the job again, or give it up when its attempts are used.

    Returns:
        The job's state: ``queued``, ``lost``, or ``cancelled`` if that was wanted.
    """
    with open_change(store, now=now) as change:
        _fence(change.session, job, lease_until=now, error=error, log_tail=log_tail)
        change.touch(job.sweep_id)
        return expire(change.session, change.session.get_one(JobRow, job.id), now=now)


def _fence(session: Session, job: ClaimedJob, **values: Any) -> Signals:
    row = _update(session, job, values)
    return Signals(cancel=row.cancel, pause=row.pause)


def _end(session: Session, job: ClaimedJob, **values: Any) -> str:
    state: str = _update(session, job, values).state
    return state


def _update(session: Session, job: ClaimedJob, values: dict[str, Any]) -> Any:
    """The fence: first thing in every write, it proves that the job is still ours."""
    held = (JobRow.id == job.id, JobRow.attempt == job.attempt, JobRow.state == "running")
    row = session.execute(
        update(JobRow)
        .where(*held)
        .values(**values)
        .returning(JobRow.state, JobRow.cancel, JobRow.pause)
        .execution_options(synchronize_session=False)
    ).first()
    if row is None:
        raise LeaseLost(f"job {job.id} attempt {job.attempt} belongs to another worker now")
    return row
