from __future__ import annotations

import math
from typing import Any

import pytest

from backend.services import analysis, sweeps
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.rules import RIVALS
from lora_alpha.errors import FitError, NotFound
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.sweeps import Sweep

NOW = 1_800_000_000.0


@pytest.fixture
def sweep(store: Store, settings: Settings) -> Sweep:
    request = SweepRequest(
        workload="mlp", ranks=[1, 2, 4, 8, 16], alphas=[2.0**k for k in range(4, 13)], steps=100
    )
    return sweeps.create(store, settings, request, key=None, now=NOW)


def test_a_sweep_that_has_not_begun_says_so(store: Store, sweep: Sweep) -> None:
    law = analysis.law(store, sweep.id, Reading())
    assert law.laws == []
    assert law.reasons == ["no cell of this sweep has finished yet"]
    cells = analysis.cells(store, sweep.id, Reading()).cells
    assert len(cells) == 45
    assert all(cell.num_pending == 3 and cell.mean is None for cell in cells)
    assert analysis.equivalence(store, sweep.id, Reading(), margin=0.02).verdict == "not_enough_data"
    assert analysis.collapse(store, sweep.id, Reading()).verdict == "not_enough_data"
    with pytest.raises(FitError, match="wait for runs"):
        analysis.recommend(store, sweep.id, rank=4, lr=None)


def test_the_planted_law_comes_back(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work()
    (law,) = analysis.law(store, sweep.id, Reading()).laws
    assert law.fit is not None
    assert law.fit.exponent == pytest.approx(0.5, abs=1e-3)
    assert law.fit.coefficient == pytest.approx(100, rel=1e-2)
    assert (law.num_ranks, law.num_seeds, law.num_censored) == (5, 3, 0)
    assert law.verdict.startswith("p = 0.50")
    assert {cost.rule for cost in law.rules} == {"α = r", "α = 2r", "α = 32", "α = 256√r"}
    assert [model.name for model in law.models]
    assert law.band is not None
    assert len(law.band.value) == len(law.band.rank)


def test_the_analysis_can_be_done_again_on_what_a_client_receives(
    client: Any, sweep: Sweep, worker: Any
) -> None:
    worker.work()
    laws = client.law(sweep.id)
    assert fit_laws(client.cells(sweep.id).cells) == laws.laws
    (law,) = laws.laws
    assert law.fit.predict([4])[0][0] == pytest.approx(200, rel=1e-2)
    by_name = {rule.name: rule.alpha(16) for rule in laws.rules}
    assert {cost.rule: cost.alpha for cost in law.rules if cost.rank == 16} == by_name
    assert {score.name for score in law.rivals} == {rival.name for rival in RIVALS}
    assert client.law(sweep.id, target="lr").rules == []


def test_diverged_and_failed_runs_are_counted_not_averaged(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.fail(worker.claim())

    def loss(configuration: Configuration) -> float:
        return math.nan if (configuration.alpha or 0) > 1000 else 1.0 + configuration.seed

    worker.work(loss)
    cells = analysis.cells(store, sweep.id, Reading()).cells
    assert sum(cell.num_failed for cell in cells) > 0
    for cell in cells:
        assert cell.n + cell.num_diverged + cell.num_failed == 3
        assert (cell.num_diverged > 0) <= ((cell.alpha or 0) > 1000)
        if cell.n == 3:
            assert cell.mean == pytest.approx(2.0)


def test_cells_can_be_read_at_a_step(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(points=5)  # falls from twice the loss at step 0 to the loss at step 100
    final = analysis.cells(store, sweep.id, Reading()).cells
    half = analysis.cells(store, sweep.id, Reading(at_step=50))
    between = analysis.cells(store, sweep.id, Reading(at_step=60))
    best = analysis.cells(store, sweep.id, Reading(at_step=60, objective="best"))
    for end, middle, later, lowest in zip(final, half.cells, between.cells, best.cells, strict=True):
        assert middle.mean == pytest.approx(1.5 * (end.mean or 0), rel=1e-6)
        assert later.mean == middle.mean == lowest.mean
    assert any("decaying schedule" in warning for warning in half.warnings)
    beyond = analysis.cells(store, sweep.id, Reading(at_step=101)).cells
    assert all(cell.mean is None for cell in beyond)


def test_few_seeds_earn_a_warning(store: Store, settings: Settings) -> None:
    request = SweepRequest(workload="mlp", ranks=[4], alphas=[64], seeds=[0, 1], steps=50)
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    assert "Only 2 seeds" in analysis.law(store, sweep.id, Reading()).warnings[0]
    assert "Only 2 seeds" in sweep.warnings[0]


def test_a_recommendation_names_its_evidence(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work()
    measured = analysis.recommend(store, sweep.id, rank=4, lr=None)
    assert measured.basis == "measured"
    assert measured.alpha == pytest.approx(200, rel=0.02)
    assert measured.scale == pytest.approx(measured.alpha / 4)
    assert measured.num_supporting_runs == 27
    assert f"lora_alpha={measured.alpha:g}," in measured.snippet
    assert measured.snippet == measured.snippets["peft"]
    assert "none of your layers" in measured.snippets["axolotl"]
    assert [cost.rule for cost in measured.regrets][:2] == ["recommended", "α = r"]
    between = analysis.recommend(store, sweep.id, rank=6, lr=None)
    assert between.basis == "interpolated"
    beyond = analysis.recommend(store, sweep.id, rank=256, lr=None)
    assert beyond.basis == "extrapolated"
    assert any("outside the swept" in warning for warning in beyond.warnings)


def test_equivalence_compares_the_two_routes(store: Store, settings: Settings, worker: Any) -> None:
    request = SweepRequest(
        workload="mlp",
        ranks=[4],
        alphas=[2.0**k for k in range(4, 9)],
        lrs=[1e-4 * 2**k for k in range(5)],
        seeds=[0, 1, 2],
        steps=50,
    )
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    # Only α·η matters: both routes reach the same loss.
    worker.work(lambda c: 1 + 0.1 * math.log2((c.alpha or 1) * c.lr / 6.4e-3) ** 2 + 1e-4 * c.seed)
    answer = analysis.equivalence(store, sweep.id, Reading(), margin=0.02)
    assert answer.verdict == "equivalent"
    assert answer.items[0].num_seeds == 3
    collapse = analysis.collapse(store, sweep.id, Reading())
    best = max(collapse.items, key=lambda item: item.score or 0)
    assert best.score == pytest.approx(1, abs=0.02)


def test_the_runs_that_would_decide_are_those_that_an_extension_runs(client: Any, worker: Any) -> None:
    def loss(c: Configuration) -> float:
        return 1 + 0.1 * (math.log2((c.alpha or 1) * c.lr / 6.4e-3) ** 2) + 1e-3 * math.sin(9 * c.seed)

    sweep = client.create_sweep(
        SweepRequest(
            workload="mlp",
            methods=["lora", "lora-alpha", "full"],
            ranks=[4],
            alphas=[2.0**k for k in range(4, 10)],
            lrs=[1e-4, 2e-4],
            seeds=[0, 1, 2],
            steps=50,
        )
    )
    worker.work(loss)
    found = client.equivalence(sweep.id)
    (item,) = found.items
    assert (found.verdict, item.limits) == ("undecided", ("high_edge",))
    cells = [run for cell in item.deciding_cells for run in cell.configurations]
    more = client.extend_sweep(sweep.id, {"cells": cells})
    assert more.counts.total == sweep.counts.total + len(cells)
    assert {(run.alpha, run.lr > 2e-4) for run in client.all_runs(sweep.id, state="queued")} == {(16.0, True)}
    worker.work(loss)
    assert client.equivalence(sweep.id).verdict == "equivalent"


def test_an_unknown_sweep_is_not_found(store: Store) -> None:
    for ask in (analysis.cells, analysis.law, analysis.collapse):
        with pytest.raises(NotFound):
            ask(store, "zzz", Reading())


def test_a_sweep_of_imported_runs_names_no_layers() -> None:
    train = {"workload": "hf-sft", "workload_options": {}, "steps": 10}
    recipe = analysis.sweep_recipe({"source": "ingest", "train": train})
    assert (recipe.targets, recipe.base_model) == (None, None)
    assert "came from elsewhere" in recipe.notes[0]
