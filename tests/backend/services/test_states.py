from __future__ import annotations

import pytest

from backend.services.states import derive_state
from lora_alpha.wire.sweeps import RunCounts


@pytest.mark.parametrize(
    ("counts", "intent", "state"),
    [
        ({"queued": 3}, "run", "queued"),
        ({"queued": 3}, "pause", "paused"),
        ({"queued": 2, "running": 1}, "pause", "running"),
        ({"queued": 2, "finished": 1}, "run", "running"),
        ({"running": 1}, "run", "running"),
        ({"running": 1}, "stop", "stopping"),
        ({"running": 1, "cancelled": 2}, "cancel", "stopping"),
        ({"finished": 3}, "run", "finished"),
        ({"finished": 3}, "stop", "finished"),
        ({"finished": 3}, "cancel", "finished"),
        ({"finished": 2, "cancelled": 1}, "stop", "stopped"),
        ({"finished": 2, "cancelled": 1}, "cancel", "cancelled"),
        ({"finished": 2, "failed": 1}, "run", "failed"),
        ({"finished": 2, "lost": 1}, "run", "failed"),
        ({"queued": 1, "failed": 1}, "run", "running"),
    ],
)
def test_state_follows_from_runs_and_intent(counts: dict[str, int], intent: str, state: str) -> None:
    assert derive_state(RunCounts(**counts), intent=intent) == state


@pytest.mark.parametrize(
    ("counts", "intent", "state"),
    [
        ({"finished": 3}, "run", "running"),
        ({"failed": 3}, "run", "running"),
        ({"finished": 3}, "pause", "paused"),
        ({"finished": 3}, "stop", "finished"),
        ({"finished": 2, "cancelled": 1}, "cancel", "cancelled"),
        ({"queued": 3}, "run", "queued"),
        ({"running": 1}, "pause", "running"),
    ],
)
def test_a_search_that_has_yet_to_decide_is_not_over(counts: dict[str, int], intent: str, state: str) -> None:
    assert derive_state(RunCounts(**counts), intent=intent, refinement_due=True) == state
