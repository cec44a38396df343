from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backend.services import analysis, ingest, runs, steering, sweeps
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.metrics import read_metric
from lora_alpha.errors import Conflict, InvalidSpec, NotFound
from lora_alpha.request import SweepRequest
from lora_alpha.wire.jobs import IngestPoints, IngestRun
from lora_alpha.wire.sweeps import Run

NOW = 1_800_000_000.0


def run_request(**fields: Any) -> IngestRun:
    return IngestRun(**{"lr": 1e-4, "rank": 8, "alpha": 16, "steps": 100, **fields})


@pytest.fixture
def run(store: Store) -> Run:
    return ingest.add_run(store, run_request(key="a", sweep_name="outside", tags=["trl"]), now=NOW)


def points(metric: str, steps: list[int], values: list[float | None], **fields: Any) -> IngestPoints:
    return IngestPoints.model_validate(
        {"series": [{"metric": metric, "steps": steps, "values": values}], **fields}
    )


def stored(store: Store, run_id: str, metric: str) -> tuple[list[int], list[float]]:
    with store.read() as session:
        series = read_metric(session, [run_id], metric)[run_id]
    return series.steps.tolist(), series.values.tolist()


def test_a_run_joins_the_sweep_of_that_name(store: Store, run: Run) -> None:
    other = ingest.add_run(store, run_request(key="b", sweep_name="outside", rank=16), now=NOW)
    assert other.sweep_id == run.sweep_id
    sweep = sweeps.read(store, run.sweep_id, now=NOW)
    assert sweep.name == "outside"
    assert sweep.state == "running"
    assert sweep.spec["ranks"] == [8, 16]
    assert sweep.tags == ["trl"]


def test_a_repeated_key_gives_the_same_run(store: Store, run: Run) -> None:
    again = ingest.add_run(store, run_request(key="a", sweep_name="outside"), now=NOW + 1)
    assert again.id == run.id
    assert ingest.add_run(store, run_request(sweep_name="outside"), now=NOW).id != run.id


def test_the_scale_follows_from_method_rank_and_alpha(store: Store) -> None:
    assert ingest.add_run(store, run_request(), now=NOW).scale == 2.0
    assert ingest.add_run(store, run_request(method="rslora", rank=16), now=NOW).scale == 4.0
    assert ingest.add_run(store, run_request(scale=7.5), now=NOW).scale == 7.5


def test_an_unknown_method_and_missing_rank_are_named(store: Store) -> None:
    with pytest.raises(InvalidSpec, match="method: got 'adalora'"):
        ingest.add_run(store, run_request(method="adalora"), now=NOW)
    with pytest.raises(InvalidSpec) as caught:
        ingest.add_run(store, run_request(rank=None, alpha=None), now=NOW)
    assert [problem.field for problem in caught.value.problems] == ["rank", "alpha"]


def test_sending_points_twice_changes_nothing(store: Store, run: Run) -> None:
    batch = points("train_loss", [1, 2, 3], [3.0, 2.0, 1.0])
    first = ingest.add_points(store, run.id, batch, now=NOW)
    again = ingest.add_points(store, run.id, batch, now=NOW + 5)
    assert (first.num_added, first.num_known) == (3, 0)
    assert (again.num_added, again.num_known) == (0, 3)
    assert stored(store, run.id, "train_loss") == ([1, 2, 3], [3.0, 2.0, 1.0])


def test_points_that_come_late_find_their_place(store: Store, run: Run) -> None:
    steps = np.random.default_rng(0).permutation(1000)
    for part in np.array_split(steps, 13):
        ingest.add_points(store, run.id, points("train_loss", part.tolist(), (part / 8).tolist()), now=NOW)
    assert stored(store, run.id, "train_loss") == (list(range(1000)), (np.arange(1000) / 8).tolist())


def test_a_stored_step_is_left_as_it_is(store: Store, run: Run) -> None:
    ingest.add_points(store, run.id, points("x", [5], [1.0]), now=NOW)
    receipt = ingest.add_points(store, run.id, points("x", [4, 5, 5, 6], [7.0, 8.0, 9.0, 10.0]), now=NOW)
    assert (receipt.num_added, receipt.num_known) == (2, 2)
    assert stored(store, run.id, "x") == ([4, 5, 6], [7.0, 1.0, 10.0])


def test_null_is_stored_as_nan_and_huge_as_infinite(store: Store, run: Run) -> None:
    ingest.add_points(store, run.id, points("x", [1, 2], [None, 1e300]), now=NOW)
    assert np.isnan(stored(store, run.id, "x")[1][0])
    assert np.isinf(stored(store, run.id, "x")[1][1])


def test_a_finished_run_has_the_losses_of_its_points(store: Store, run: Run) -> None:
    batch = points("eval_loss", [0, 50, 100], [3.0, 1.25, 1.5], state="finished")
    receipt = ingest.add_points(store, run.id, batch, now=NOW + 60)
    assert receipt.state == "finished"
    shown = runs.read(store, run.id)
    assert (shown.final_loss, shown.best_loss, shown.best_step) == (1.5, 1.25, 50)
    assert shown.duration_s == 60
    assert not shown.diverged
    assert sweeps.read(store, run.sweep_id, now=NOW).state == "finished"


def test_a_run_that_ends_non_finite_has_diverged(store: Store, run: Run) -> None:
    batch = points("eval_loss", [0, 50, 100], [3.0, 2.0, None], state="finished")
    ingest.add_points(store, run.id, batch, now=NOW)
    shown = runs.read(store, run.id)
    assert shown.diverged
    assert shown.final_loss is None
    assert shown.best_loss == 2.0


def test_given_losses_count_more_than_points(store: Store, run: Run) -> None:
    batch = points("eval_loss", [0, 100], [3.0, 2.0], state="finished", final_loss=1.9, summary={"gpu": 2.0})
    ingest.add_points(store, run.id, batch, now=NOW)
    shown = runs.read(store, run.id)
    assert shown.final_loss == 1.9
    assert shown.summary == {"gpu": 2.0}


def test_series_of_unequal_length_are_refused_and_nothing_is_stored(store: Store, run: Run) -> None:
    batch = IngestPoints.model_validate(
        {
            "series": [
                {"metric": "a", "steps": [1], "values": [1.0]},
                {"metric": "b", "steps": [1, 2], "values": [1.0]},
            ]
        }
    )
    with pytest.raises(InvalidSpec, match=r"series\.1\.values: got 1 values for 2 steps"):
        ingest.add_points(store, run.id, batch, now=NOW)
    with store.read() as session:
        assert read_metric(session, [run.id], "a") == {}


def test_runs_that_are_trained_here_take_no_points(store: Store, settings: Settings) -> None:
    sweep = sweeps.create(store, settings, SweepRequest(workload="mlp"), key=None, now=NOW)
    own = runs.listing(store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=1).items[0]
    with pytest.raises(Conflict, match="trained here"):
        ingest.add_points(store, own.id, points("x", [1], [1.0]), now=NOW)
    with pytest.raises(Conflict, match="trained here"):
        ingest.add_run(store, run_request(sweep=sweep.id), now=NOW)
    with pytest.raises(NotFound):
        ingest.add_points(store, "zzz", points("x", [1], [1.0]), now=NOW)


@pytest.mark.parametrize("verb", ["pause", "resume", "retry"])
def test_an_ingested_sweep_cannot_be_steered(verb: str, store: Store, settings: Settings, run: Run) -> None:
    with pytest.raises(Conflict, match="trained elsewhere"):
        steering.steer(store, settings, run.sweep_id, verb, now=NOW)


def test_runs_that_will_never_report_again_can_be_closed(store: Store, settings: Settings, run: Run) -> None:
    assert steering.steer(store, settings, run.sweep_id, "cancel", now=NOW).state == "cancelled"
    assert runs.read(store, run.id).state == "cancelled"


def test_ingested_runs_appear_in_curves_cells_and_law(store: Store) -> None:
    for rank in (4, 16, 64):
        for k in range(4, 12):
            for seed in (0, 1):
                request = run_request(rank=rank, alpha=2.0**k, seed=seed, sweep_name="grid")
                run = ingest.add_run(store, request, now=NOW)
                loss = 1 + 0.1 * (k - 5.3 - 0.5 * np.log2(rank)) ** 2 + 0.01 * seed
                batch = points("eval_loss", [0, 100], [5.0, loss], state="finished")
                ingest.add_points(store, run.id, batch, now=NOW)
    assert len(analysis.cells(store, run.sweep_id, Reading()).cells) == 24
    (law,) = analysis.law(store, run.sweep_id, Reading()).laws
    assert law.fit is not None
    assert law.fit.exponent == pytest.approx(0.5, abs=1e-3)
    curves = runs.curves(
        store,
        filters={"sweep": [run.sweep_id]},
        metric="eval_loss",
        points=100,
        group_by="cell",
        from_step=None,
    )
    assert len(curves.curves) == 24
