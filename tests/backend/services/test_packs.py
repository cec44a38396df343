"""The fleet that packs are planned for: the living workers and those that are expected."""

from __future__ import annotations

import pytest

from backend.services.packs import fleet_of
from backend.store.engines import Store
from backend.store.tables import WorkerRow
from lora_alpha.planning.fleet import Fleet

NOW = 1_800_000_000.0
GPU, CPU = ("cuda:0", 80_000), ("cpu", 0)


@pytest.mark.parametrize(
    ("alive", "expected", "found"),
    [
        ([], Fleet(0), Fleet(1, 0)),
        ([], Fleet(2, 24_000), Fleet(2, 24_000)),
        ([GPU], Fleet(0), Fleet(1, 80_000)),
        ([GPU, ("cuda:1", 24_000)], Fleet(0), Fleet(2, 24_000)),
        ([GPU, GPU], Fleet(0), Fleet(2, 40_000)),  # two workers on one GPU share its memory
        ([GPU, CPU], Fleet(0), Fleet(2, 0)),
        ([GPU], Fleet(2, 24_000), Fleet(2, 24_000)),
        ([GPU], Fleet(1, 24_000), Fleet(1, 80_000)),
    ],
)
def test_a_pack_fits_whoever_may_claim_it(store: Store, alive, expected: Fleet, found: Fleet) -> None:
    with store.write() as session:
        for index, (device, gpu_bytes) in enumerate(alive):
            session.add(worker(index, device=device, gpu_bytes=gpu_bytes))
        session.add(worker(98, state="gone"))
        session.add(worker(99, heartbeat=NOW - 600))
    with store.read() as session:
        assert fleet_of(session, expected=expected, now=NOW) == found


def worker(index: int, **changes) -> WorkerRow:
    facts = {"device": "cpu", "gpu_bytes": 0, "state": "idle", "heartbeat": NOW - 1, **changes}
    return WorkerRow(id=f"w{index}", host="here", pid=index, queue="default", started=NOW - 700, **facts)
