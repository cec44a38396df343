"""What may be done to a sweep in each state: declared here, shown by the API, offered by every interface."""

from __future__ import annotations

from collections.abc import Mapping

from lora_alpha.spec import SweepState

STATES: Mapping[str, frozenset[SweepState]] = {
    "pause": frozenset({"queued", "running"}),
    "resume": frozenset({"paused", "stopped", "cancelled"}),
    "stop": frozenset({"queued", "running", "paused"}),
    "cancel": frozenset({"queued", "running", "paused", "stopping"}),
    "retry": frozenset({"failed"}),
    "extend": frozenset({"queued", "running", "paused", "finished", "failed"}),
    "delete": frozenset({"queued", "paused", "finished", "failed", "stopped", "cancelled"}),
}
# Of runs that are trained elsewhere nothing can be started or halted here, only closed and deleted.
ELSEWHERE = ("stop", "cancel", "delete")


def allowed_actions(state: SweepState, *, ingested: bool = False) -> list[str]:
    """Actions that fit a sweep in ``state``, in the order in which they are offered.

    A request may still be refused: a paused sweep, for one, cannot be deleted before its last pack has
    been handed back.

    >>> allowed_actions("failed")
    ['retry', 'extend', 'delete']
    """
    return [
        action
        for action, states in STATES.items()
        if state in states and (not ingested or action in ELSEWHERE)
    ]
