"""Runs read at many steps: what counts at each of them, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, update

from backend import export
from backend.services import adaptive, analysis, curvature, horizon, jobs, sweeps
from backend.services.horizon import cells_over_steps, read_curves
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.metrics import CurveWriter
from backend.store.tables import RunRow
from lora_alpha.analysis.cells import Cell
from lora_alpha.errors import InvalidSpec
from lora_alpha.request import SweepRequest
from lora_alpha.wire.sweeps import Sweep

NOW = 1_800_000_000.0
FINAL, BEST = Reading(), Reading(objective="best")


def new_sweep(store: Store, settings: Settings, **fields: Any) -> Sweep:
    given = {"ranks": [1, 4, 16], "alphas": [2.0**k for k in range(4, 13)], "seeds": [0, 1]}
    request = SweepRequest.model_validate(
        {"workload": "mlp", "steps": 100, "lr_schedule": "constant", **given, **fields}
    )
    return sweeps.create(store, settings, request, key=None, now=NOW)


def one_cell(store: Store, settings: Settings, **fields: Any) -> Sweep:
    return new_sweep(store, settings, ranks=[4], alphas=[8.0], seeds=[0, 1], **fields)


def write(store: Store, worker: Any, steps: list[int], values: list[list[float]]) -> list[Any]:
    """Points of every run, a row of ``values`` a seed; the packs, which go on."""
    packs = []
    while (job := worker.claim()) is not None:
        packs.append(job)
        ids = [run["id"] for run in job.spec["runs"]]
        with store.read() as session:
            curves = CurveWriter(session, ids, token=job.attempt)
        own = [values[run["configuration"]["seed"]] for run in job.spec["runs"]]
        curves.add("eval_loss", np.array(steps), np.array(own))
        jobs.progress(store, job, now=NOW, lease_s=60, write=partial(curves.write, now=NOW))
    return packs


def cells_at(store: Store, sweep_id: str, steps: list[int], reading: Reading = FINAL) -> dict[int, Cell]:
    with store.read() as session:
        curves = read_curves(session, sweep_id, reading)
    return {step: cell for step, (cell,) in cells_over_steps(curves, steps, reading)}


def counts(cell: Cell) -> tuple[int, int, int, int]:
    return cell.n, cell.num_diverged, cell.num_failed, cell.num_pending


def test_each_point_is_the_law_at_that_step(store: Store, settings: Settings, worker: Any) -> None:
    sweep = new_sweep(store, settings)
    worker.work(points=5)
    found = horizon.horizon(store, sweep.id, FINAL)
    assert found.steps == [25, 50, 75, 100]
    (planted,) = found.horizons
    for point in planted.points:
        (law,) = analysis.law(store, sweep.id, Reading(at_step=point.step)).laws
        assert law.fit is not None
        assert (point.exponent, point.coefficient) == (law.fit.exponent, law.fit.coefficient)
        assert point.exponent == pytest.approx(0.5, abs=1e-3)
        assert point.verdict == law.verdict
    assert found.reasons == found.warnings == []


def test_a_run_counts_where_it_has_been_and_is_pending_beyond(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = one_cell(store, settings)
    write(store, worker, [0, 25, 50], [[3, 2, 1]] * 2)
    at = cells_at(store, sweep.id, [25, 50, 75])
    assert [counts(cell) for cell in at.values()] == [(2, 0, 0, 0), (2, 0, 0, 0), (0, 0, 0, 2)]
    assert [cell.mean for cell in at.values()] == [2, 1, None]


def test_a_run_had_not_diverged_before_it_did(store: Store, settings: Settings, worker: Any) -> None:
    sweep = one_cell(store, settings)
    packs = write(store, worker, [25, 50, 75, 100], [[3, 2, math.nan, math.nan], [3, 2, 1, 1]])
    expected = [(2, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 1, 0, 0)]
    running = cells_at(store, sweep.id, [25, 50, 75, 100])
    assert [counts(cell) for cell in running.values()] == expected
    best = cells_at(store, sweep.id, [50, 75], BEST)
    assert [counts(cell) for cell in best.values()] == [(2, 0, 0, 0), (1, 1, 0, 0)]
    with store.write() as session:  # as a worker does at the end
        first = update(RunRow).where(RunRow.sweep_id == sweep.id, RunRow.seed == 0)
        session.execute(first.values(diverged=True, step=60))
    for job in packs:
        jobs.finish(store, job, now=NOW)
    ended = cells_at(store, sweep.id, [25, 50, 75, 100])
    assert [counts(cell) for cell in ended.values()] == expected


def test_a_run_that_failed_counts_where_it_had_been(store: Store, settings: Settings, worker: Any) -> None:
    sweep = one_cell(store, settings)
    packs = write(store, worker, [25, 50], [[3, 2]] * 2)
    for job in packs:
        worker.fail(job)
    at = cells_at(store, sweep.id, [50, 75])
    assert [counts(cell) for cell in at.values()] == [(2, 0, 0, 0), (0, 0, 2, 0)]


def test_the_best_so_far_is_that_of_the_steps_up_to_there(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = one_cell(store, settings)
    write(store, worker, [25, 50, 75], [[3, 1, 2]] * 2)
    assert [cell.mean for cell in cells_at(store, sweep.id, [25, 50, 75], BEST).values()] == [3, 1, 1]


def test_a_shorter_run_from_elsewhere_never_comes_there_and_its_schedule_is_unknown(client: Any) -> None:
    for seed, steps in ((0, [10, 20]), (1, [10, 20, 40])):
        run = client.ingest_run({"lr": 1e-4, "rank": 4, "alpha": 8, "steps": steps[-1], "seed": seed})
        series = [{"metric": "eval_loss", "steps": steps, "values": [1.0] * len(steps)}]
        client.ingest_points(run.id, {"series": series, "state": "finished"})
    found = client.horizon(run.sweep_id)
    assert found.steps == [10, 20, 40]
    assert any("was not recorded" in warning for warning in found.warnings)
    assert "no rank has three values of α yet" in found.reasons[0]


def test_a_run_that_ended_before_a_step_is_counted_as_unrecorded_there(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = one_cell(store, settings)
    packs = write(store, worker, [25, 50], [[3, 2]] * 2)
    for job in packs:
        jobs.finish(store, job, now=NOW)
    cell = cells_at(store, sweep.id, [75])[75]
    assert (counts(cell), cell.num_unrecorded) == ((0, 0, 0, 0), 2)


def test_a_decaying_schedule_is_marked_and_explained(store: Store, settings: Settings, worker: Any) -> None:
    sweep = new_sweep(store, settings, lr_schedule="cosine", warmup=25)
    worker.work(points=5)
    found = horizon.horizon(store, sweep.id, FINAL)
    (planted,) = found.horizons
    assert [point.decaying for point in planted.points] == [False, True, True, False]
    assert [point.warming for point in planted.points] == [True, False, False, False]
    assert [part in " ".join(found.warnings) for part in ("η decays", "η rises")] == [True, True]


def test_the_horizon_can_be_cut_chosen_and_narrowed(client: Any, worker: Any) -> None:
    request = {"ranks": [1, 2, 4], "alphas": [2.0**k for k in range(4, 11)], "lrs": [1e-4, 1 / 3e3]}
    sweep = client.create_sweep({"workload": "mlp", "steps": 100, "seeds": [0, 1], **request})
    worker.work(points=5)
    assert [found.lr for found in client.horizon(sweep.id).horizons] == [1e-4, 1 / 3e3]
    assert [found.lr for found in client.horizon(sweep.id, fixed=0.000333333333333).horizons] == [1 / 3e3]
    assert client.horizon(sweep.id, at_step=60).steps == [25, 50]
    assert client.horizon(sweep.id, steps=[10, 30, 80]).steps == [25, 75]
    assert client.horizon(sweep.id, steps=[10]).steps == []
    assert client.horizon(sweep.id, at_step=60).at_step == 60


def test_the_horizon_of_a_metric_that_is_to_be_high(client: Any) -> None:
    """Accuracy is highest at α = 64 at any rank; the run's best so far is its highest."""
    for rank in (1, 4, 16):
        for alpha in (16.0, 32.0, 64.0, 128.0, 256.0):
            run = client.ingest_run({"lr": 1e-4, "rank": rank, "alpha": alpha, "steps": 20})
            high = 0.9 - 0.05 * math.log2(alpha / 64) ** 2
            series = {"metric": "accuracy", "steps": [10, 15, 20], "values": [high, high / 2, high / 2]}
            client.ingest_points(run.id, {"series": [series], "state": "finished"})
    found = client.horizon(run.sweep_id, metric="accuracy", goal="max", objective="best")
    assert (found.metric.name, found.metric.goal) == ("accuracy", "max")
    (law,) = found.horizons
    assert [point.step for point in law.points] == [10, 15, 20]
    for point in law.points:
        assert (point.exponent, point.coefficient) == (pytest.approx(0, abs=0.05), pytest.approx(64, rel=0.1))
    with pytest.raises(InvalidSpec, match="step by step"):
        client.horizon(run.sweep_id, metric="accuracy", goal="max", steps_to=0.5)


def test_more_steps_than_are_worth_fitting_are_refused(http: Any, store: Store, settings: Settings) -> None:
    sweep = one_cell(store, settings)

    def status(steps: list[int]) -> int:
        return http.get(f"/api/sweeps/{sweep.id}/horizon", params={"steps": steps}).status_code

    assert status(list(range(1, 65))) == 200
    assert status(list(range(1, 66))) == 422
    assert status([0]) == 422
    assert http.get("/api/sweeps/zzz/horizon").status_code == 404


def test_every_curve_is_read_once_however_many_steps(store: Store, settings: Settings, worker: Any) -> None:
    sweep = new_sweep(store, settings)
    worker.work(points=21)
    asked: list[str] = []
    event.listen(store.reader, "before_cursor_execute", lambda *call: asked.append(call[2]))
    assert len(horizon.horizon(store, sweep.id, FINAL).steps) > 10
    assert len([statement for statement in asked if "metric_chunks" in statement]) == 1
    assert len([statement for statement in asked if "FROM runs" in statement]) == 1


COMPUTED: list[tuple[Any, str, Callable[[Store, str], object]]] = [
    (analysis, "fit_laws", lambda store, sweep: analysis.law(store, sweep, FINAL)),
    (
        analysis,
        "fit_laws_and_draws",
        lambda store, sweep: analysis.recommend(store, sweep, rank=4, lr=None),
    ),
    (analysis, "compare_routes", lambda store, sweep: analysis.equivalence(store, sweep, FINAL, margin=0.02)),
    (analysis, "find_collapse", lambda store, sweep: analysis.collapse(store, sweep, FINAL)),
    (analysis, "compare_schedules", lambda store, sweep: analysis.schedules(store, sweep, FINAL, margin=0.1)),
    (curvature, "find_optima", curvature.read),
    (horizon, "laws_over_horizon", lambda store, sweep: horizon.horizon(store, sweep, FINAL)),
    (export, "fit_laws", lambda store, sweep: list(export.csv_blocks(store, "law", export.Asked([sweep])))),
    (
        export,
        "fit_laws",
        lambda store, sweep: list(export.csv_blocks(store, "optima", export.Asked([sweep]))),
    ),
    (
        horizon,
        "laws_over_horizon",
        lambda store, sweep: list(export.csv_blocks(store, "horizon", export.Asked([sweep]))),
    ),
]


@pytest.mark.parametrize(("module", "name", "ask"), COMPUTED)
def test_nothing_is_computed_in_a_transaction(
    module: Any,
    name: str,
    ask: Callable[[Store, str], object],
    store: Store,
    settings: Settings,
    worker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = new_sweep(store, settings)
    worker.work()
    open_connections = watch(store, module, name, monkeypatch)
    ask(store, sweep.id)
    assert set(open_connections) == {0}


def test_a_search_is_taken_further_without_computing_in_a_transaction(
    store: Store, settings: Settings, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_sweep(store, settings, search={"kind": "adaptive"})
    while (job := worker.claim()) is not None:
        worker.finish(job)
    open_connections = watch(store, adaptive, "next_alphas", monkeypatch)
    assert worker.refine() == 1
    assert set(open_connections) == {0}


def watch(store: Store, module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the store's connections are in use at each call of ``module.name``."""
    real, seen = getattr(module, name), []

    def watched(*args: Any, **more: Any) -> Any:
        seen.append(store.reader.pool.checkedout() + store.writer.pool.checkedout())  # type: ignore[attr-defined]
        return real(*args, **more)

    monkeypatch.setattr(module, name, watched)
    return seen
