from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from backend.services import runs, sweeps
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.metrics import append_points
from backend.store.tables import RunRow
from lora_alpha.errors import InvalidSpec, NotFound
from lora_alpha.request import SweepRequest
from lora_alpha.wire.sweeps import Run, Sweep

NOW = 1_800_000_000.0


@pytest.fixture
def sweep(store: Store, settings: Settings) -> Sweep:
    request = SweepRequest(workload="mlp", ranks=[1, 4], alphas=[64, 256], seeds=[0, 1, 2], steps=100)
    return sweeps.create(store, settings, request, key=None, now=NOW)


def page_through(store: Store, *, sort: str, limit: int, **filters: Any) -> list[Run]:
    found: list[Run] = []
    cursor = None
    while True:
        page = runs.listing(store, filters=filters, sort=sort, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        cursor = page.next
        if cursor is None:
            return found


def curves(store: Store, sweep: Sweep, **fields: Any) -> Any:
    given = {"metric": "eval_loss", "points": 100, "group_by": "run", "from_step": None, **fields}
    return runs.curves(store, filters={"sweep": [sweep.id]}, **given)


@pytest.mark.parametrize("sort", ["position", "-alpha", "name", "final_loss", "-final_loss", "started"])
@pytest.mark.parametrize("limit", [1, 5, 12])
def test_pages_hold_each_run_once_in_order(
    sort: str, limit: int, store: Store, sweep: Sweep, worker: Any
) -> None:
    worker.finish(worker.claim())  # some runs have a loss, others none
    found = page_through(store, sort=sort, limit=limit, sweep=[sweep.id])
    assert len({run.id for run in found}) == len(found) == 12
    column = {"started": "started_at"}.get(sort.lstrip("-"), sort.lstrip("-"))
    values = [getattr(run, column) for run in found] if column != "position" else []
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=sort.startswith("-"))
    assert values[: len(known)] == known, "runs without a value come last either way"


def test_filters_are_combined(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work()
    found = page_through(store, sort="position", limit=100, sweep=[sweep.id], rank=[4], seed=[0, 2])
    assert {(run.rank, run.seed) for run in found} == {(4, 0), (4, 2)}
    assert len(found) == 4
    assert page_through(store, sort="position", limit=9, state=["failed"]) == []


def test_a_sort_or_cursor_of_elsewhere_is_refused(store: Store, sweep: Sweep) -> None:
    with pytest.raises(InvalidSpec, match="sort: got 'colour': choose one of"):
        runs.listing(store, filters={}, sort="colour", cursor=None, limit=1)
    for cursor in ("x", "eyJhIjoxfQ", "WzFd", "\u00e9"):
        with pytest.raises(InvalidSpec, match="cursor"):
            runs.listing(store, filters={}, sort="alpha", cursor=cursor, limit=1)


def test_a_run_shows_its_attempt_and_the_sweeps_tags(store: Store, settings: Settings, worker: Any) -> None:
    request = SweepRequest(workload="mlp", ranks=[4], alphas=[64], seeds=[0], steps=50, tags=["paper"])
    sweeps.create(store, settings, request, key=None, now=NOW)
    worker.work()
    (run,) = page_through(store, sort="position", limit=5)
    assert runs.read(store, run.id) == run
    assert (run.attempt, run.tags) == (1, ["paper"])
    assert run.duration_s is not None
    assert run.duration_s > 0


def test_the_log_tells_why_a_run_failed(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.fail(worker.claim(), "CUDA out of memory")
    (run, *_) = page_through(store, sort="position", limit=12, state=["failed"])
    log = runs.log(store, run.id)
    assert "failed, attempt 1" in log
    assert "CUDA out of memory" in log
    assert "Traceback" in log
    assert run.error == "CUDA out of memory"


def test_an_unknown_run_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no run 'zzz'"):
        runs.read(store, "zzz")


def test_curves_are_complete_where_they_fit(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(points=5)
    found = curves(store, sweep)
    assert found.metrics == ["eval_loss", "train_loss"]
    assert len(found.curves) == 12
    assert found.curves[0].step == [0, 25, 50, 75, 100]
    assert found.last_step == 100
    assert found.curves[0].labels["rank"] == 1


def test_only_later_points_come_back_with_from_step(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(points=5)
    later = curves(store, sweep, from_step=50)
    assert later.curves[0].step == [75, 100]
    nothing = curves(store, sweep, from_step=100)
    assert nothing.last_step == 100
    assert all(curve.step == [] for curve in nothing.curves)


def test_seeds_collapse_to_mean_and_deviation(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(points=3)
    single = curves(store, sweep)
    grouped = curves(store, sweep, group_by="cell")
    assert len(grouped.curves) == 4
    curve = grouped.curves[0]
    members = [one.value for one in single.curves if one.run_ids[0] in curve.run_ids]
    np.testing.assert_allclose(curve.value, np.mean(members, axis=0), rtol=1e-6)
    np.testing.assert_allclose(curve.std, np.std(members, axis=0, ddof=1), atol=1e-7)
    assert curve.n == [3, 3, 3]
    assert "seed" not in curve.labels


def test_diverged_seeds_leave_the_mean_but_are_marked(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(lambda c: float("nan") if c.seed == 1 else 1.0 + c.seed, points=3)
    curve = curves(store, sweep, group_by="cell").curves[0]
    assert curve.diverged
    assert curve.n == [2, 2, 2]
    assert curve.value[-1] == pytest.approx(2.0)


def test_any_axes_can_group(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work()
    assert [curve.labels for curve in curves(store, sweep, group_by="rank").curves] == [
        {"rank": 1},
        {"rank": 4},
    ]
    with pytest.raises(InvalidSpec, match="group_by: got 'colour'"):
        curves(store, sweep, group_by="colour")


def test_seeds_with_different_steps_are_aligned(store: Store, sweep: Sweep) -> None:
    with store.write() as session:
        rows = session.scalars(select(RunRow).order_by(RunRow.position).limit(3)).all()
        for offset, row in enumerate(rows):
            append_points(
                session,
                row.id,
                "x",
                steps=[0, 10 + offset],
                values=[1.0, 2.0 + offset],
                token=1,
                now=NOW,
            )
    (curve,) = curves(store, sweep, metric="x", group_by="cell").curves
    assert curve.step == [0, 10, 11, 12]
    assert curve.n == [3, 1, 1, 1]
    assert curve.value == [1, 2, 3, 4]
    assert curve.std == [0, None, None, None]


@pytest.mark.parametrize("points", [3, 10, 100, 999])
def test_downsampling_keeps_ends_extremes_and_the_bound(points: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=5000)
    values[1234] = 50.0
    steps = np.arange(5000)
    kept = runs.downsample(steps, values, points)
    assert kept[0] == 0
    assert kept[-1] == 4999
    assert len(kept) <= points + 2
    assert (np.diff(kept) > 0).all()
    if points >= 10:
        assert 1234 in kept


def test_downsampling_keeps_the_end_of_a_diverged_curve() -> None:
    values = np.r_[np.linspace(1, 2, 3000), np.full(2000, np.nan)]
    kept = runs.downsample(np.arange(5000), values, 100)
    assert len(kept) <= 102
    assert kept[-1] == 4999
    assert np.isfinite(values[kept]).sum() >= 90


def write_layers(store: Store, sweep: Sweep, names: list[str]) -> None:
    with store.write() as session:
        for run_id in session.scalars(select(RunRow.id).where(RunRow.sweep_id == sweep.id)):
            for place, name in enumerate(names):
                append_points(session, run_id, name, steps=[0, 10], values=[place, 1.0], token=1, now=NOW)


@pytest.mark.parametrize("group_by", ["run", "cell"])
def test_several_metrics_come_in_one_answer_each_as_alone(
    group_by: str, store: Store, sweep: Sweep, worker: Any
) -> None:
    worker.work(points=5)
    asked: dict[str, Any] = {"group_by": group_by, "points": 3, "from_step": 25}
    both = curves(store, sweep, metrics=["train_loss", "eval_loss"], **asked)
    alone = [
        curve
        for metric in ("eval_loss", "train_loss")
        for curve in curves(store, sweep, metric=metric, **asked).curves
    ]
    assert both.curves == alone
    assert {curve.metric for curve in both.curves} == {"eval_loss", "train_loss"}
    assert (both.metric, both.last_step) == ("", 100)


def test_a_beginning_stands_for_all_metrics_that_begin_so_in_natural_order(
    store: Store, sweep: Sweep
) -> None:
    write_layers(store, sweep, ["drift_ratio/h.10", "drift_ratio/h.9", "drift_ratio", "purity/h.9"])
    found = curves(store, sweep, metrics=["drift_ratio/*"], group_by="cell")
    assert list(dict.fromkeys(curve.metric for curve in found.curves)) == [
        "drift_ratio/h.9",
        "drift_ratio/h.10",
    ]
    assert [curve.value[0] for curve in found.curves] == [1.0] * 4 + [0.0] * 4
    assert curves(store, sweep, metrics=["nothing/*", "loss"]).curves == []


def test_one_answer_holds_no_more_metrics_than_it_may_but_names_all(store: Store, sweep: Sweep) -> None:
    names = [f"purity/{layer}" for layer in range(runs.MAX_METRICS + 3)]
    write_layers(store, sweep, names)
    found = curves(store, sweep, metrics=["purity/*"], group_by="cell")
    assert list(dict.fromkeys(curve.metric for curve in found.curves)) == names[: runs.MAX_METRICS]
    assert found.metrics == sorted(names)
