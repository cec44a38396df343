from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from backend.services import steering, sweeps
from backend.services.estimates import measured_seconds
from backend.services.jobs import open_change
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import JobRow, RunRow
from lora_alpha.catalog.resolve import resolve
from lora_alpha.request import SweepRequest

NOW = 1_800_000_000.0
REQUEST = SweepRequest(workload="mlp", ranks=[1, 4], alphas=[64, 256], seeds=[0, 1, 2], steps=100)


def test_progress_counts_steps_of_running_runs(store: Store, settings: Settings, worker: Any) -> None:
    sweep = sweeps.create(store, settings, REQUEST, key=None, now=NOW)
    assert sweep.progress == 0
    assert sweep.eta_seconds is None
    job = worker.claim()
    with store.write() as session:
        session.execute(update(RunRow).where(RunRow.job_id == job.id).values(step=50))
    share = len(job.spec["runs"]) * 50 / (12 * 100)
    assert sweeps.read(store, sweep.id, now=NOW).progress == pytest.approx(share)
    worker.finish(job)
    worker.work()
    assert sweeps.read(store, sweep.id, now=NOW).progress == 1


def test_the_time_left_follows_the_recent_rate(store: Store, settings: Settings, worker: Any) -> None:
    sweep = sweeps.create(store, settings, REQUEST, key=None, now=NOW)
    job = worker.claim()
    num_runs = len(job.spec["runs"])
    with store.write() as session:
        session.execute(update(RunRow).where(RunRow.job_id == job.id).values(step=50))
    # Half of this pack took 10 s: so many configuration-steps a second, by the one worker.
    rate = num_runs * 50 / 10
    left = (12 * 100 - num_runs * 50) / rate
    assert sweeps.read(store, sweep.id, now=worker.now + 10).eta_seconds == pytest.approx(left)


def test_a_long_pause_before_an_extension_does_not_count(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = sweeps.create(store, settings, REQUEST, key=None, now=NOW)
    worker.work()
    worker.now += 86_400
    with open_change(store, now=worker.now) as change:  # a day later somebody adds a pack, and it has begun
        change.sweep(sweep.id)
        session = change.session
        row = session.scalars(select(JobRow).limit(1)).one()
        row.state, row.finished = "running", None
        row.started = worker.now
        session.execute(
            update(RunRow).where(RunRow.job_id == row.id).values(state="running", step=50, finished=None)
        )
    eta = sweeps.read(store, sweep.id, now=worker.now + 5).eta_seconds
    assert eta is not None
    assert eta < 60


@pytest.mark.parametrize("verb_state", ["paused", "finished"])
def test_a_sweep_that_nobody_works_on_has_no_time_left(
    verb_state: str, store: Store, settings: Settings, worker: Any
) -> None:
    sweep = sweeps.create(store, settings, REQUEST, key=None, now=NOW)
    if verb_state == "paused":
        steering.steer(store, settings, sweep.id, "pause", now=NOW)
    else:
        worker.work()
    shown = sweeps.read(store, sweep.id, now=NOW + 1000)
    assert shown.state == verb_state
    assert shown.eta_seconds is None


def test_plans_use_what_was_measured_here(store: Store, settings: Settings, worker: Any) -> None:
    first = sweeps.plan(store, settings, REQUEST, now=NOW)
    assert first.estimate_source == "catalog"
    sweeps.create(store, settings, REQUEST, key=None, now=NOW)
    worker.work()
    second = sweeps.plan(store, settings, REQUEST, now=NOW)
    assert second.estimate_source == "measured"
    # A fake pack takes ten seconds; the packs of the plan run one after another on the one worker.
    assert second.estimated_seconds == pytest.approx(10 * second.num_packs)


def test_other_options_and_batch_sizes_are_other_measurements(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweeps.create(store, settings, REQUEST, key=None, now=NOW)
    worker.work()
    other = resolve(REQUEST.model_copy(update={"workload_options": {"width": 64}})).train
    larger = resolve(REQUEST.model_copy(update={"batch_size": 512})).train
    with store.read() as session:
        assert measured_seconds(session, resolve(REQUEST).train) is not None
        assert measured_seconds(session, other) is None
        assert measured_seconds(session, larger) is None
