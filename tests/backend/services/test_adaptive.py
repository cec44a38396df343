from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from backend.queue import create_celery
from backend.services import adaptive, analysis, steering, sweeps
from backend.services.outcomes import Reading
from backend.services.reconciler import reconcile_once
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.sweeps import Sweep
from tests.backend.conftest import FakeWorker

NOW = 1_800_000_000.0
GRID = [2.0**k for k in range(3, 14)]


def adaptive_sweep(store: Store, settings: Settings, **fields: Any) -> Sweep:
    body = {"workload": "mlp", "ranks": [1, 4, 16], "alphas": GRID, "seeds": [0, 1], "steps": 50, **fields}
    request = SweepRequest.model_validate({**body, "search": {"kind": "adaptive"}})
    return sweeps.create(store, settings, request, key=None, now=NOW)


def valley(configuration: Configuration) -> float:
    assert configuration.rank is not None
    assert configuration.alpha is not None
    away = math.log2(configuration.alpha) - 7.3 - 0.5 * math.log2(configuration.rank)
    return 1 + 0.1 * away**2 + 0.001 * configuration.seed


def test_the_first_stage_is_coarse(store: Store, settings: Settings) -> None:
    sweep = adaptive_sweep(store, settings)
    assert sweep.counts.total == 3 * 6 * 2  # 8, 32, 128, 512, 2048, 8192


def test_it_goes_on_until_each_optimum_is_enclosed_to_half_an_octave(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = adaptive_sweep(store, settings)
    worker.work(valley)
    done = sweeps.read(store, sweep.id, now=NOW)
    assert done.state == "finished"
    assert done.counts.finished == done.counts.total
    full_grid = 3 * 2 * (2 * len(GRID) - 1)
    assert done.counts.total < 0.65 * full_grid
    (law,) = analysis.law(store, sweep.id, Reading()).laws
    for optimum in law.optima:
        assert optimum.censored == ""
        assert math.log2(optimum.value) == pytest.approx(7.3 + 0.5 * math.log2(optimum.rank), abs=0.01)
    cells = analysis.cells(store, sweep.id, Reading()).cells
    for rank in (1, 4, 16):
        alphas = sorted(cell.alpha for cell in cells if cell.rank == rank and cell.alpha)
        best = min((cell for cell in cells if cell.rank == rank), key=lambda cell: cell.mean or math.inf)
        here = alphas.index(best.alpha)
        assert math.log2(alphas[here + 1] / alphas[here]) <= 0.501
        assert math.log2(alphas[here] / alphas[here - 1]) <= 0.501


def test_an_optimum_beyond_the_grid_is_followed(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings, alphas=[8, 16, 32], ranks=[4])
    worker.work(valley)
    (law,) = analysis.law(store, sweep.id, Reading()).laws
    assert law.optima[0].censored == ""
    assert law.optima[0].value == pytest.approx(2**8.3, rel=0.01)


def test_a_cliff_is_approached_to_half_an_octave(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings, ranks=[4])
    worker.work(lambda c: 1 / (c.alpha or 1) if (c.alpha or 0) <= 300 else math.nan)
    cells = analysis.cells(store, sweep.id, Reading()).cells
    stable = max(cell.alpha or 0 for cell in cells if cell.mean is not None)
    diverged = min(cell.alpha or 0 for cell in cells if cell.num_diverged)
    assert stable <= 300 < diverged
    assert math.log2(diverged / stable) <= 0.501


def test_failures_do_not_make_it_go_on_for_ever(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings)
    for _ in range(50):
        if (job := worker.claim()) is not None:
            worker.fail(job)
        elif not worker.refine():
            break
    assert sweeps.read(store, sweep.id, now=NOW).state == "failed"


def finish_first_stage(worker: Any) -> None:
    while (job := worker.claim()) is not None:
        worker.finish(job, valley)


def test_a_search_that_has_yet_to_decide_goes_on_in_everybodys_eyes(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = adaptive_sweep(store, settings)
    finish_first_stage(worker)
    undecided = sweeps.read(store, sweep.id, now=NOW)
    assert undecided.counts.finished == undecided.counts.total
    assert (undecided.state, undecided.finished_at) == ("running", None)
    assert worker.refine() == 1
    assert sweeps.read(store, sweep.id, now=NOW).counts.queued > 0


def test_the_reconciler_takes_a_search_further_whose_worker_died_in_between(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = adaptive_sweep(store, settings)
    finish_first_stage(worker)
    reconcile_once(store, settings, create_celery(settings), now=worker.now)
    assert sweeps.read(store, sweep.id, now=NOW).counts.queued > 0
    worker.work(valley)
    assert sweeps.read(store, sweep.id, now=NOW).state == "finished"


def test_it_is_decided_once_however_many_come_at_once(any_store: Store, settings: Settings) -> None:
    sweep = adaptive_sweep(any_store, settings)
    finish_first_stage(FakeWorker(any_store, settings))
    start = threading.Barrier(4)

    def refine(_: int) -> int:
        start.wait()
        return adaptive.refine_due(any_store, settings, now=NOW)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(refine, range(4))) == [0, 0, 0, 1]
    with any_store.read() as session:
        runs = session.scalars(select(RunRow.configuration).where(RunRow.sweep_id == sweep.id)).all()
    assert len({str(sorted(run.items())) for run in runs}) == len(runs) > sweep.counts.total


def test_whoever_comes_later_finds_it_decided(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings)
    finish_first_stage(worker)
    assert worker.refine() == 1
    total = sweeps.read(store, sweep.id, now=NOW).counts.total
    # As one does that saw the search used up just before the other added its runs.
    assert adaptive._refine(store, settings, sweep.id, now=NOW) is False
    assert sweeps.read(store, sweep.id, now=NOW).counts.total == total
    with store.read() as session:  # the runs of the one before are still to be looked at
        assert session.get_one(SweepRow, sweep.id).refinement_due


def retry_one(store: Store, sweep_id: str) -> None:
    with store.write() as session:
        run = session.scalars(select(RunRow).where(RunRow.sweep_id == sweep_id)).first()
        assert run is not None
        run.state = "failed"


def widen(store: Store, sweep_id: str) -> None:
    with store.write() as session:
        sweep = session.get_one(SweepRow, sweep_id)
        sweep.spec = {**sweep.spec, "alphas": [*GRID, 2.0**14]}


@pytest.mark.parametrize("change", [retry_one, widen])
def test_what_was_computed_from_a_search_that_has_changed_since_is_not_used(
    change: Any, store: Store, settings: Settings, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = adaptive_sweep(store, settings)
    finish_first_stage(worker)
    compute = adaptive._next_runs

    def meanwhile(search: Any) -> Any:
        change(store, sweep.id)
        return compute(search)

    with monkeypatch.context() as patched:
        patched.setattr(adaptive, "_next_runs", meanwhile)
        assert worker.refine() == 0
    assert sweeps.read(store, sweep.id, now=NOW).counts.total == sweep.counts.total
    assert worker.refine() == 1  # the next look decides


def test_a_search_that_cannot_be_decided_keeps_no_other_waiting(
    store: Store, settings: Settings, worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = adaptive_sweep(store, settings), adaptive_sweep(store, settings)
    finish_first_stage(worker)
    with store.write() as session:
        session.get_one(SweepRow, broken.id).spec = {"search": {"kind": "adaptive"}}
    assert worker.refine() == 1
    assert sweeps.read(store, sound.id, now=NOW).counts.queued > 0
    assert f"sweep {broken.id} cannot be taken further" in caplog.text


def test_a_paused_search_waits_with_its_decision(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings, ranks=[4])
    claimed = []
    while (job := worker.claim()) is not None:
        claimed.append(job)
    steering.steer(store, settings, sweep.id, "pause", now=NOW)
    for job in claimed:
        worker.finish(job, valley)
    assert sweeps.read(store, sweep.id, now=NOW).state == "paused"
    assert worker.refine() == 0
    assert steering.steer(store, settings, sweep.id, "resume", now=NOW).state == "running"
    assert worker.refine() == 1


def test_a_stopped_search_is_over_and_goes_on_when_it_is_resumed(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = adaptive_sweep(store, settings)
    finish_first_stage(worker)
    assert steering.steer(store, settings, sweep.id, "stop", now=NOW).state == "finished"
    assert worker.refine() == 0
    steering.steer(store, settings, sweep.id, "resume", now=NOW)
    assert worker.refine() == 1


def test_later_stages_have_the_attempts_of_the_settings(
    store: Store, settings: Settings, worker: Any
) -> None:
    nine = settings.model_copy(update={"max_attempts": 9})
    adaptive_sweep(store, nine)
    finish_first_stage(worker)
    adaptive.refine_due(store, nine, now=NOW)
    with store.read() as session:
        assert set(session.scalars(select(JobRow.max_attempts))) == {9}


def test_a_grid_sweep_ends_with_its_grid(store: Store, settings: Settings, worker: Any) -> None:
    request = SweepRequest(workload="mlp", ranks=[4], alphas=GRID, seeds=[0], steps=50)
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    worker.work(valley)
    assert sweeps.read(store, sweep.id, now=NOW).counts.total == len(GRID)


def test_the_plan_says_that_more_will_come(store: Store, settings: Settings) -> None:
    request = SweepRequest.model_validate(
        {"workload": "mlp", "ranks": [4], "alphas": GRID, "search": {"kind": "adaptive"}}
    )
    plan = sweeps.plan(store, settings, request, now=NOW)
    assert plan.num_runs == 6 * 3
    assert any("Adaptive search" in warning for warning in plan.warnings)
