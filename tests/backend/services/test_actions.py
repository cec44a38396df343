"""What the API says is allowed is what it then does, state by state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from backend.services import ingest, steering, sweeps
from backend.services.actions import STATES, allowed_actions
from backend.settings import Settings
from backend.store.engines import Store
from lora_alpha.errors import Conflict
from lora_alpha.request import SweepRequest
from lora_alpha.spec import SweepState
from lora_alpha.wire.jobs import IngestRun
from lora_alpha.wire.sweeps import ExtendRequest, Sweep

NOW = 1_800_000_000.0


class Subject:
    """A sweep that can be brought into any state."""

    def __init__(self, store: Store, settings: Settings, worker: Any) -> None:
        self.store, self.settings, self.worker = store, settings, worker
        request = SweepRequest(workload="mlp", ranks=[1, 4], alphas=[64, 256], seeds=[0, 1], steps=100)
        self.id = sweeps.create(store, settings, request, key=None, now=NOW).id

    def read(self) -> Sweep:
        return sweeps.read(self.store, self.id, now=NOW)

    def do(self, action: str) -> None:
        if action == "delete":
            steering.remove(self.store, self.settings, self.id)
        elif action == "extend":
            more = ExtendRequest(alphas=[1024])
            steering.extend(self.store, self.settings, self.id, more, now=NOW)
        else:
            steering.steer(self.store, self.settings, self.id, action, now=NOW)

    def bring_into(self, state: str) -> Subject:
        routes: dict[str, list[Callable[[], Any]]] = {
            "queued": [],
            "running": [self.worker.claim],
            "paused": [lambda: self.do("pause")],
            "stopping": [self.worker.claim, lambda: self.do("stop")],
            "stopped": [lambda: self.do("stop")],
            "cancelled": [lambda: self.do("cancel")],
            "failed": [lambda: self.worker.fail(self.worker.claim()), self.worker.work],
            "finished": [self.worker.work],
        }
        for step in routes[state]:
            step()
        assert self.read().state == state
        return self


@pytest.fixture
def subject(store: Store, settings: Settings, worker: Any) -> Subject:
    return Subject(store, settings, worker)


@pytest.mark.parametrize("action", list(STATES))
@pytest.mark.parametrize("state", get_args(SweepState))
def test_what_is_offered_is_done_and_ended_sweeps_refuse_the_rest(
    state: str, action: str, subject: Subject
) -> None:
    subject.bring_into(state)
    offered = action in subject.read().actions
    assert offered == (action in allowed_actions(state))
    if offered:
        subject.do(action)
    elif (action, state) not in REPEATED:
        with pytest.raises(Conflict):
            subject.do(action)


# Not offered, for it changes nothing or takes back what was asked for a moment ago; not refused either.
REPEATED = {("pause", "paused"), ("pause", "stopping"), ("stop", "stopping"), ("resume", "stopping")}


def test_runs_trained_elsewhere_can_only_be_closed_and_deleted(store: Store, settings: Settings) -> None:
    run = ingest.add_run(store, IngestRun(lr=1e-4, rank=4, alpha=8, steps=10), now=NOW)
    assert sweeps.read(store, run.sweep_id, now=NOW).actions == ["stop", "cancel"]
    for action in ("pause", "resume", "retry"):
        with pytest.raises(Conflict):
            steering.steer(store, settings, run.sweep_id, action, now=NOW)
    steering.steer(store, settings, run.sweep_id, "stop", now=NOW)
    assert sweeps.read(store, run.sweep_id, now=NOW).actions == ["delete"]
