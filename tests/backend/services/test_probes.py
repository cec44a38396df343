from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from backend.services import probes, runs, sweeps
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import RunRow
from lora_alpha.errors import Conflict, InvalidSpec, NotFound
from lora_alpha.request import SweepRequest
from lora_alpha.spec import ProbeSpec

NOW = 1_800_000_000.0


def create(store: Store, settings: Settings, *, now: float = NOW, **fields: Any) -> Any:
    return probes.create(store, settings, ProbeSpec(**fields), now=now)


@pytest.fixture
def run_id(store: Store, settings: Settings) -> str:
    request = SweepRequest(workload="mlp", ranks=[4], alphas=[64], seeds=[0], steps=50)
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    page = runs.listing(store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=1)
    return page.items[0].id


def test_a_fresh_point_is_queued_as_a_job_of_the_same_id(
    store: Store, settings: Settings, worker: Any
) -> None:
    probe = create(store, settings, workload="mlp", rank=4, alpha=64, kind="top", top_k=3)
    assert probe.state == "queued"
    job = worker.claim()
    assert (job.id, job.kind) == (probe.id, "probe")
    assert ProbeSpec.model_validate(job.spec).top_k == 3
    assert probes.read(store, probe.id).state == "running"


def test_a_run_and_a_fresh_point_exclude_each_other(store: Store, settings: Settings) -> None:
    for fields in ({}, {"run": "x", "workload": "mlp"}):
        with pytest.raises(InvalidSpec, match="either a run, or a workload"):
            create(store, settings, **fields)


def test_every_problem_of_a_fresh_point_is_named(store: Store, settings: Settings) -> None:
    with pytest.raises(InvalidSpec) as caught:
        create(store, settings, workload="mlp", workload_options={"width": 1, "x": 2}, step=3)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["workload_options.width", "workload_options.x", "rank", "alpha", "step"]
    with pytest.raises(InvalidSpec, match="workload: got 'nope'"):
        create(store, settings, workload="nope", rank=1, alpha=1)
    with pytest.raises(InvalidSpec, match="full has no LoRA coordinates"):
        create(store, settings, workload="mlp", method="full")


def test_full_coordinates_need_no_rank(store: Store, settings: Settings) -> None:
    assert create(store, settings, workload="mlp", space="full").state == "queued"


def test_only_steps_with_weights_can_be_probed(
    store: Store, settings: Settings, run_id: str, worker: Any
) -> None:
    assert create(store, settings, run=run_id, step=0).run_id == run_id
    with pytest.raises(Conflict, match="is queued: its end can be probed when"):
        create(store, settings, run=run_id)
    with pytest.raises(Conflict, match="at steps 0 and 50 only"):
        create(store, settings, run=run_id, step=7)
    with store.write() as session:
        session.execute(update(RunRow).values(state="finished", adapter="adapters/x.safetensors"))
    assert create(store, settings, run=run_id).step == 50
    with pytest.raises(NotFound):
        create(store, settings, run="zzz")


def test_probes_are_listed_newest_first_page_by_page(store: Store, settings: Settings) -> None:
    made = [
        create(store, settings, workload="mlp", rank=4, alpha=64, now=NOW + index // 2).id
        for index in range(7)
    ]
    seen: list[str] = []
    cursor = None
    while True:
        page = probes.listing(
            store, sweep=None, run=None, state=None, kind=None, space=None, cursor=cursor, limit=3
        )
        seen += [probe.id for probe in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    assert [made.index(probe_id) // 2 for probe_id in seen] == [3, 2, 2, 1, 1, 0, 0]


def test_a_waiting_probe_is_cancelled_at_once(store: Store, settings: Settings, worker: Any) -> None:
    probe = create(store, settings, workload="mlp", rank=4, alpha=64)
    assert probes.cancel(store, probe.id, now=NOW).state == "cancelled"
    assert worker.claim() is None
    with pytest.raises(Conflict, match="nothing to cancel"):
        probes.cancel(store, probe.id, now=NOW)


def test_an_unknown_probe_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no probe 'zzz'"):
        probes.read(store, "zzz")


def test_probes_at_fresh_points_are_found_however_many_belong_to_sweeps(
    store: Store, settings: Settings, run_id: str, client: Any
) -> None:
    fresh = create(store, settings, workload="mlp", rank=4, alpha=64)
    of_run = [create(store, settings, run=run_id, step=0, now=NOW + 1 + i) for i in range(3)]
    assert [probe.id for probe in client.probes(fresh=True, limit=1).items] == [fresh.id]
    assert {probe.id for probe in client.probes().items} == {fresh.id, *(probe.id for probe in of_run)}
