"""The state of a sweep, derived from its runs and from what the user last asked for."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.services.adaptive import refine
from backend.store.sweeps import run_counts
from backend.store.tables import RunRow, SweepRow
from lora_alpha.spec import ENDED_SWEEPS, SweepState
from lora_alpha.wire.sweeps import RunCounts


def derive_state(counts: RunCounts, *, intent: str) -> SweepState:
    """The sweep's state.

    ``finished`` means every run finished; ``failed`` that nothing is left to do and at least one run failed
    or was lost; a cancel or stop shows as such only if it cut something off.
    """
    if counts.running:
        return "stopping" if intent in {"stop", "cancel"} else "running"
    if counts.queued:
        if intent == "pause":
            return "paused"
        if intent in {"stop", "cancel"}:
            return "stopping"
        return "running" if counts.finished or counts.failed or counts.lost else "queued"
    if counts.cancelled:
        return "stopped" if intent == "stop" else "cancelled"
    return "failed" if counts.failed or counts.lost else "finished"


def refresh_state(session: Session, sweep_id: str, *, now: float) -> SweepState:
    """Recompute and store the sweep's state; call it in the transaction that changed its runs.

    When the runs of an adaptive sweep are used up, this is where it gets its next ones.
    """
    sweep = session.get(SweepRow, sweep_id, with_for_update=True)
    if sweep is None:
        return "cancelled"
    session.flush()
    counts = run_counts(session, [sweep_id])[sweep_id]
    if not counts.queued and not counts.running and refine(session, sweep, now=now):
        counts = run_counts(session, [sweep_id])[sweep_id]
    state = derive_state(counts, intent=sweep.intent)
    sweep.state = state
    if sweep.started is None and (counts.running or counts.finished):
        sweep.started = session.scalar(select(func.min(RunRow.started)).where(RunRow.sweep_id == sweep_id))
    sweep.finished = (sweep.finished or now) if state in ENDED_SWEEPS else None
    session.flush()
    return state
