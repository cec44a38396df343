"""Transitions that a user asks for. Whoever holds a job learns of them by its flags.

Those of a sweep take it from ``Change.sweep``, with its jobs locked.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update

from backend.services.jobs.change import Change, open_change
from backend.services.jobs.expiry import cancel_waiting
from backend.services.jobs.parts import start_over
from backend.services.packs import enqueue_packs
from backend.store.engines import Store
from backend.store.jobs import UNFINISHED
from backend.store.sweeps import runs_in_state
from backend.store.tables import JobRow, SweepRow
from lora_alpha.planning.fleet import Fleet


def pause_sweep(change: Change, sweep: SweepRow) -> None:
    """Waiting packs are held; a running one gives itself back at its next checkpoint. Probes go on."""
    packs = update(JobRow).where(JobRow.sweep_id == sweep.id, JobRow.kind == "pack")
    change.session.execute(packs.where(JobRow.state == "running").values(pause=True))
    change.session.execute(packs.where(JobRow.state == "queued").values(state="paused"))
    sweep.intent = "pause"


def resume_sweep(change: Change, sweep: SweepRow) -> None:
    """What was held may be claimed again, and a running pack need not pause any more."""
    jobs = update(JobRow).where(JobRow.sweep_id == sweep.id)
    change.session.execute(jobs.where(JobRow.state == "running").values(pause=False))
    change.session.execute(
        jobs.where(JobRow.state == "paused").values(state="queued", pause=False, rung=None)
    )
    sweep.intent = "run"


def stop_sweep(change: Change, sweep: SweepRow) -> None:
    """Running packs end in their own time; waiting ones are cancelled."""
    jobs = update(JobRow).where(JobRow.sweep_id == sweep.id)
    # A pause that a running pack has not followed yet is void: nobody would resume the pack.
    change.session.execute(jobs.where(JobRow.state == "running").values(pause=False))
    change.session.execute(jobs.where(JobRow.state.in_(("queued", "paused"))).values(cancel=True))
    cancel_waiting(change, JobRow.sweep_id == sweep.id)
    sweep.intent = "stop"


def cancel_sweep(change: Change, sweep: SweepRow) -> None:
    """Waiting jobs are cancelled, running ones asked to stop."""
    jobs = update(JobRow).where(JobRow.sweep_id == sweep.id)
    change.session.execute(jobs.where(JobRow.state.in_(UNFINISHED)).values(cancel=True))
    cancel_waiting(change, JobRow.sweep_id == sweep.id)
    sweep.intent = "cancel"


def requeue_runs(
    change: Change, sweep: SweepRow, *, states: Sequence[str], fleet: Fleet, max_attempts: int
) -> int:
    """Put runs of these states into new packs; whatever they had written starts over.

    Returns:
        The number of runs.
    """
    runs = runs_in_state(change.session, sweep.id, states)
    if runs:
        start_over(change.session, runs)
        enqueue_packs(change.session, sweep, runs, fleet=fleet, max_attempts=max_attempts, now=change.now)
    return len(runs)


def request_cancel(store: Store, job_id: str, *, now: float) -> bool:
    """Cancel one job, or ask whoever holds it to stop; False if it has ended."""
    with open_change(store, now=now) as change:
        asked = change.session.scalar(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state.in_(UNFINISHED))
            .values(cancel=True)
            .returning(JobRow.id)
        )
        cancel_waiting(change, JobRow.id == job_id)
        return asked is not None
