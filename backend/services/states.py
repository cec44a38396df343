"""The state of a sweep, derived from its runs and from what the user last asked for."""

from __future__ import annotations

from lora_alpha.spec import SweepState
from lora_alpha.wire.sweeps import RunCounts


def derive_state(counts: RunCounts, *, intent: str, refinement_due: bool = False) -> SweepState:
    """The sweep's state.

    ``finished`` means every run finished; ``failed`` that nothing is left to do and at least one run failed
    or was lost; a cancel or stop shows as such only if it cut something off. A search whose runs are used up
    goes on, or stays paused, until it has decided whether it needs more (``refinement_due``).
    """
    if counts.running:
        return "stopping" if intent in {"stop", "cancel"} else "running"
    if counts.queued:
        if intent == "pause":
            return "paused"
        if intent in {"stop", "cancel"}:
            return "stopping"
        return "running" if counts.finished or counts.failed or counts.lost else "queued"
    if refinement_due and intent in {"run", "pause"}:
        return "paused" if intent == "pause" else "running"
    if counts.cancelled:
        return "stopped" if intent == "stop" else "cancelled"
    return "failed" if counts.failed or counts.lost else "finished"
