from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from backend.services import jobs, steering, sweeps
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.metrics import list_metrics
from backend.store.tables import ChunkRow, JobRow, RunRow
from lora_alpha.errors import Conflict, InvalidSpec, NotFound
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.sweeps import ExtendRequest, Sweep

NOW = 1_800_000_000.0


@pytest.fixture
def sweep(store: Store, settings: Settings) -> Sweep:
    request = SweepRequest(workload="mlp", ranks=[1, 4], alphas=[64, 256], seeds=[0, 1], steps=100)
    return sweeps.create(store, settings, request, key=None, now=NOW)


@pytest.fixture
def steer(store: Store, settings: Settings, sweep: Sweep) -> Any:
    return lambda verb: steering.steer(store, settings, sweep.id, verb, now=NOW + 100)


def job_states(store: Store, sweep: Sweep) -> list[str]:
    with store.read() as session:
        query = select(JobRow.state).where(JobRow.sweep_id == sweep.id).order_by(JobRow.state)
        return list(session.scalars(query))


def test_pause_of_a_queued_sweep_leaves_nothing_to_claim(steer: Any, worker: Any) -> None:
    assert steer("pause").state == "paused"
    assert worker.claim() is None


def test_resume_lets_workers_claim_again(steer: Any, worker: Any, sweep: Sweep) -> None:
    steer("pause")
    assert steer("resume").state == "queued"
    assert worker.work() == len(job_states_of(worker, sweep))


def job_states_of(worker: Any, sweep: Sweep) -> list[str]:
    return job_states(worker.store, sweep)


def test_pause_flags_the_running_pack_and_holds_the_rest(steer: Any, worker: Any, store: Store) -> None:
    job = worker.claim()
    assert steer("pause").state == "running"
    with store.read() as session:
        assert session.get_one(JobRow, job.id).pause
    assert worker.claim() is None


def test_pause_is_over_when_the_running_pack_has_been_given_back(
    steer: Any, worker: Any, store: Store, settings: Settings, sweep: Sweep
) -> None:
    job = worker.claim()
    steer("pause")
    assert jobs.release(store, job, now=NOW) == "paused"
    assert sweeps.read(store, sweep.id, now=NOW).state == "paused"
    steer("resume")
    assert worker.claim() is not None


def test_stop_lets_running_runs_end_and_cancels_the_waiting(steer: Any, worker: Any, sweep: Sweep) -> None:
    job = worker.claim()
    assert steer("stop").state == "stopping"
    worker.finish(job)
    ended = sweeps.read(worker.store, sweep.id, now=NOW)
    assert ended.state == "stopped"
    assert ended.counts.finished == len(job.spec["runs"])
    assert ended.counts.cancelled == ended.counts.total - ended.counts.finished


def test_stop_makes_an_earlier_pause_void(steer: Any, worker: Any, store: Store) -> None:
    job = worker.claim()
    steer("pause")
    steer("stop")
    with store.read() as session:
        assert not session.get_one(JobRow, job.id).pause


def test_stop_of_a_paused_sweep_ends_it(steer: Any) -> None:
    steer("pause")
    assert steer("stop").state == "stopped"


def test_cancel_of_a_queued_sweep_ends_it_at_once(steer: Any) -> None:
    cancelled = steer("cancel")
    assert cancelled.state == "cancelled"
    assert cancelled.counts.cancelled == cancelled.counts.total == 8
    assert cancelled.finished_at is not None


def test_cancel_flags_the_running_pack(steer: Any, worker: Any, store: Store) -> None:
    job = worker.claim()
    assert steer("cancel").state == "stopping"
    with store.read() as session:
        assert session.get_one(JobRow, job.id).cancel


def test_resume_after_cancel_queues_what_was_cut_off(steer: Any, worker: Any, sweep: Sweep) -> None:
    steer("cancel")
    assert steer("resume").state == "queued"
    worker.work()
    assert sweeps.read(worker.store, sweep.id, now=NOW).state == "finished"


def test_resume_while_a_cancel_is_under_way_is_refused(steer: Any, worker: Any) -> None:
    worker.claim()
    steer("cancel")
    with pytest.raises(Conflict, match="being cancelled"):
        steer("resume")


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel"])
def test_a_finished_sweep_cannot_be(verb: str, steer: Any, worker: Any) -> None:
    worker.work()
    with pytest.raises(Conflict, match="is finished: there is nothing to"):
        steer(verb)


def test_resume_of_a_sweep_that_runs_is_refused(steer: Any) -> None:
    with pytest.raises(Conflict, match="was not paused"):
        steer("resume")


def test_retry_queues_failed_runs_in_new_packs_and_keeps_the_others(
    steer: Any, worker: Any, store: Store, sweep: Sweep
) -> None:
    failed = worker.claim()
    worker.fail(failed)
    worker.work()
    assert sweeps.read(store, sweep.id, now=NOW).state == "failed"
    again = steer("retry")
    assert again.state == "running"
    assert again.counts.queued == len(failed.spec["runs"])
    with store.read() as session:
        retried = session.scalars(select(RunRow).where(RunRow.state == "queued")).all()
    assert {run.id for run in retried} == {run["id"] for run in failed.spec["runs"]}
    assert all(run.job_id != failed.id and run.error is None for run in retried)
    worker.work()
    assert sweeps.read(store, sweep.id, now=NOW).state == "finished"


def test_retry_starts_lost_runs_over(steer: Any, worker: Any, store: Store, settings: Settings) -> None:
    job = worker.claim()
    worker.finish(job)
    with store.write() as session:  # as if its last attempt had died after writing
        for run in session.scalars(select(RunRow).where(RunRow.job_id == job.id)):
            run.state = "lost"
    steer("retry")
    with store.read() as session:
        assert list_metrics(session, [run["id"] for run in job.spec["runs"]]) == []


def test_retry_with_nothing_to_retry_is_refused(steer: Any) -> None:
    with pytest.raises(Conflict, match="no failed or lost run"):
        steer("retry")


def test_retry_in_a_paused_sweep_waits(steer: Any, worker: Any) -> None:
    worker.fail(worker.claim())
    steer("pause")
    assert steer("retry").state == "paused"
    assert worker.claim() is None
    steer("resume")
    assert worker.claim() is not None


def test_extend_adds_missing_cells_only(store: Store, settings: Settings, sweep: Sweep, worker: Any) -> None:
    worker.work()
    cell = Configuration(method="lora", rank=4, alpha=100, lr=2e-4, seed=0)
    old = Configuration(method="lora", rank=4, alpha=64, lr=2e-4, seed=0)
    request = ExtendRequest(alphas=[64, 1024], cells=[cell, old])
    extended = steering.extend(store, settings, sweep.id, request, now=NOW)
    assert extended.counts.total == 8 + 4 + 1
    assert extended.counts.finished == 8
    assert extended.state == "running"
    assert extended.spec["alphas"] == [64, 256, 1024]
    again = steering.extend(store, settings, sweep.id, request, now=NOW)
    assert again.counts.total == 13
    worker.work()
    assert sweeps.read(store, sweep.id, now=NOW).state == "finished"


def test_new_seeds_are_run_at_explicit_cells_too(store: Store, settings: Settings, sweep: Sweep) -> None:
    cell = Configuration(method="lora", rank=2, alpha=8.0, lr=1e-3, seed=0)
    steering.extend(store, settings, sweep.id, ExtendRequest(cells=[cell]), now=NOW)
    extended = steering.extend(store, settings, sweep.id, ExtendRequest(seeds=[7, 8]), now=NOW)
    assert [c["seed"] for c in extended.spec["cells"]] == [0, 7, 8]
    grid = len(sweep.spec["ranks"]) * len(sweep.spec["alphas"]) * len(sweep.spec["lrs"])
    assert extended.counts.total == sweep.counts.total + 1 + 2 * (grid + 1)


def test_extend_of_a_paused_sweep_waits(
    steer: Any, store: Store, settings: Settings, sweep: Sweep, worker: Any
) -> None:
    steer("pause")
    extended = steering.extend(store, settings, sweep.id, ExtendRequest(ranks=[8]), now=NOW)
    assert extended.state == "paused"
    assert worker.claim() is None


def test_extend_names_every_problem(store: Store, settings: Settings, sweep: Sweep) -> None:
    cells = [Configuration(method="lora", lr=1e-3), Configuration(method="lore", rank=1, alpha=1, lr=1e-3)]
    with pytest.raises(InvalidSpec) as caught:
        steering.extend(store, settings, sweep.id, ExtendRequest(methods=["x"], cells=cells), now=NOW)
    assert [problem.field for problem in caught.value.problems] == ["methods", "methods", "cells.0"]


def test_extend_refuses_too_many_runs(store: Store, settings: Settings, sweep: Sweep) -> None:
    request = ExtendRequest(seeds=list(range(100)), lrs=[k * 1e-5 for k in range(1, 65)])
    with pytest.raises(InvalidSpec, match="the most is"):
        steering.extend(store, settings, sweep.id, request, now=NOW)


def test_extend_of_a_cancelled_sweep_is_refused(
    steer: Any, store: Store, settings: Settings, sweep: Sweep
) -> None:
    steer("cancel")
    with pytest.raises(Conflict, match="resume it before"):
        steering.extend(store, settings, sweep.id, ExtendRequest(ranks=[8]), now=NOW)


def test_delete_takes_curves_jobs_and_files_along(
    store: Store, settings: Settings, sweep: Sweep, worker: Any
) -> None:
    job = worker.claim()
    checkpoint = settings.home / "checkpoints" / job.id / "00000010.pt"
    adapter = settings.home / "adapters" / "a.safetensors"
    for path in (checkpoint, adapter):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    worker.finish(job)
    with store.write() as session:
        session.get_one(RunRow, job.spec["runs"][0]["id"]).adapter = "adapters/a.safetensors"
    steering.remove(store, settings, sweep.id)
    with store.read() as session:
        for table in (RunRow, JobRow, ChunkRow):
            assert session.scalars(select(table)).all() == []
    assert not checkpoint.exists()
    assert not adapter.exists()


def test_delete_of_a_running_sweep_is_refused(
    store: Store, settings: Settings, sweep: Sweep, worker: Any
) -> None:
    worker.claim()
    with pytest.raises(Conflict, match="cancel it first"):
        steering.remove(store, settings, sweep.id)


def test_an_unknown_sweep_is_not_found(store: Store, settings: Settings) -> None:
    with pytest.raises(NotFound, match="no sweep 'zzz'"):
        steering.steer(store, settings, "zzz", "pause", now=NOW)


def test_an_expired_lease_of_a_paused_sweep_does_not_undo_the_pause(
    steer: Any, worker: Any, store: Store
) -> None:
    job = worker.claim()
    steer("pause")
    jobs.reconcile(store, now=NOW + 10_000)
    again = worker.claim()
    assert again is not None
    assert again.id == job.id
    with store.read() as session:
        assert session.get_one(JobRow, job.id).pause
