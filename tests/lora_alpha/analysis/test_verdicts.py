"""Cost of rules, rivals, recommendation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.optimum import find_optima
from lora_alpha.analysis.recommend import recommend
from lora_alpha.analysis.rules import rival_scores, rule_costs
from lora_alpha.errors import FitError
from tests.lora_alpha.analysis.planted import LR, RANKS, planted_cells


def test_rules_cost_what_was_measured_and_nothing_else() -> None:
    curve = {4.0: 2.0, 8.0: 1.5, 32.0: 1.0, 512.0: None}
    cells = make_cells(
        RunOutcome("lora", 4, alpha, alpha / 4, LR, 0, "finished", loss, loss is None)
        for alpha, loss in curve.items()
    )
    costs = {cost.rule: cost for cost in rule_costs(cells, method="lora", lr=LR)}
    assert costs["α = r"].cost == pytest.approx(1.0)
    assert costs["α = 2r"].cost == pytest.approx(0.5)
    assert costs["α = 32"].cost == pytest.approx(0.0)
    assert costs["α = 256√r"].diverged
    assert costs["α = 256√r"].cost is None
    without = [cell for cell in cells if cell.alpha != 8.0]
    missing = {cost.rule: cost for cost in rule_costs(without, method="lora", lr=LR)}["α = 2r"]
    assert not missing.measured
    assert missing.cost is None


def test_a_loss_of_zero_costs_a_share_of_the_range() -> None:
    cells = make_cells(
        RunOutcome("lora", 4, alpha, alpha / 4, LR, 0, "finished", loss)
        for alpha, loss in {4.0: 0.5, 8.0: 0.25, 32.0: 0.0}.items()
    )
    costs = {cost.rule: cost for cost in rule_costs(cells, method="lora", lr=LR)}
    assert costs["α = 32"].cost == 0.0
    assert (costs["α = 2r"].cost, costs["α = 2r"].excess) == (0.5, 0.25)
    assert costs["α = 2r"].share_of == "of eval_loss's range over the sweep"


def test_the_rival_that_planted_the_law_wins() -> None:
    for exponent, winner in ((0.5, "√r"), (0.0, "constant α"), (1.0, "α ∝ r")):
        cells = planted_cells(
            np.random.default_rng(0),
            num_seeds=3,
            exponent=exponent,
            noise=0,
            shared=0,
            own=0,
            ranks=RANKS[:5],
        )
        scores = rival_scores(find_optima(cells))
        assert scores[0].name.startswith(winner)
        assert scores[0].octaves < 0.05
        assert scores[0].in_basin == scores[0].num_judged == 4


def test_recommendation_prefers_the_measured_then_the_law() -> None:
    cells = planted_cells(
        np.random.default_rng(0), num_seeds=3, noise=0, shared=0, own=0, ranks=(1, 4, 16, 64)
    )
    laws = fit_laws(cells)
    measured = recommend(laws, cells, rank=16)
    assert measured.basis == "measured"
    assert measured.alpha == 512.0
    assert "lora_alpha=512," in measured.snippet
    between = recommend(laws, cells, rank=8)
    assert between.basis == "interpolated"
    assert between.alpha_estimate == pytest.approx(128 * math.sqrt(8), rel=0.02)
    assert between.alpha == pytest.approx(362, abs=4)
    assert between.alpha == round(between.alpha)
    beyond = recommend(laws, cells, rank=256)
    assert beyond.basis == "extrapolated"
    assert "outside the swept 1 to 64" in beyond.warnings[0]


def test_recommendation_at_another_lr_keeps_the_product_and_says_so() -> None:
    cells = planted_cells(np.random.default_rng(0), num_seeds=3, noise=0, shared=0, own=0)
    laws = fit_laws(cells)
    moved = recommend(laws, cells, rank=4, lr=2 * LR)
    assert moved.alpha == pytest.approx(128, rel=0.06)
    assert "keeping α·η" in moved.warnings[0]
    with pytest.raises(FitError, match="times off the swept"):
        recommend(laws, cells, rank=4, lr=100 * LR)
    with pytest.raises(FitError, match="no cell of this sweep"):
        recommend([], [], rank=4)
