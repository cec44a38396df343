"""Equivalence of the two routes, cost of rules, rivals, recommendation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.optimum import find_optima
from lora_alpha.analysis.recommend import recommend
from lora_alpha.analysis.rules import rival_scores, rule_costs
from lora_alpha.errors import FitError
from tests.lora_alpha.analysis.planted import LR, RANKS, planted_cells

LRS = (1e-4, 4e-4, 1.6e-3)
ALPHAS = (8.0, 32.0, 128.0)


def routes(alpha_best: float, lr_best: float, *, spread: float, seeds: int = 5) -> list[Cell]:
    """A grid of (α, η) whose smallest α and η are (8, 1e-4) and whose routes end at the given losses."""
    rng = np.random.default_rng(7)
    runs = []
    for alpha in ALPHAS:
        for lr in LRS:
            for seed in range(seeds):
                loss = alpha_best if (alpha, lr) == (32.0, 1e-4) else 2.0
                loss = lr_best if (alpha, lr) == (8.0, 4e-4) else loss
                noise = rng.normal(0, spread)
                runs.append(RunOutcome("lora", 4, alpha, alpha / 4, lr, seed, "finished", loss + noise))
    return make_cells(runs)


@pytest.mark.parametrize(
    ("alpha_best", "lr_best", "spread", "verdict"),
    [
        (1.0, 1.0, 0.001, "equivalent"),
        (0.9, 1.0, 0.001, "alpha_better"),
        (1.0, 0.9, 0.001, "lr_better"),
        (1.0, 1.0, 0.2, "undecided"),
    ],
)
def test_verdicts(alpha_best: float, lr_best: float, spread: float, verdict: str) -> None:
    (found,) = compare_routes(routes(alpha_best, lr_best, spread=spread))
    assert found.verdict == verdict
    assert (found.best_alpha, found.best_lr) == (32.0, 4e-4)


def test_difference_is_a_paired_t_interval() -> None:
    cells = routes(0.9, 1.0, spread=0.05)
    (found,) = compare_routes(cells)
    a = next(c for c in cells if (c.alpha, c.lr) == (32.0, 1e-4)).losses
    b = next(c for c in cells if (c.alpha, c.lr) == (8.0, 4e-4)).losses
    pairs = np.array([[a[seed], b[seed]] for seed in sorted(a)])
    interval = stats.ttest_rel(pairs[:, 0], pairs[:, 1]).confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low / pairs.mean(), rel=1e-9)
    assert found.high == pytest.approx(interval.high / pairs.mean(), rel=1e-9)


def test_a_false_claim_of_difference_is_as_rare_as_stated() -> None:
    rng = np.random.default_rng(11)
    claims = 0
    for _ in range(300):
        runs = [
            RunOutcome("lora", 4, alpha, alpha / 4, lr, seed, "finished", 1 + rng.normal(0, 0.1))
            for alpha, lr in ((8.0, 1e-4), (32.0, 1e-4), (8.0, 4e-4))
            for seed in range(3)
        ]
        # The corner is far worse, so that each route has one best cell and no choice biases it.
        runs = [
            RunOutcome(*(r.method, r.rank, r.alpha, r.scale, r.lr, r.seed, r.status), (r.loss or 0) + 5)
            if (r.alpha, r.lr) == (8.0, 1e-4)
            else r
            for r in runs
        ]
        (found,) = compare_routes(make_cells(runs))
        claims += found.verdict in {"alpha_better", "lr_better"}
    assert claims <= stats.binom.ppf(0.9995, 300, 0.05)


def test_a_route_that_ends_at_its_best_says_so() -> None:
    grid = routes(0.9, 1.0, spread=0.01)
    (inside,) = compare_routes(grid)
    (cut,) = compare_routes([cell for cell in grid if cell.lr <= 4e-4])
    (both,) = compare_routes([cell for cell in grid if cell.lr <= 4e-4 and (cell.alpha or 0) <= 32])
    assert "extend the grid" not in inside.reason
    assert cut.reason.endswith("the largest η measured is the best: extend the grid")
    assert "the largest α and η measured are the best" in both.reason


def test_one_seed_or_one_alpha_is_not_enough() -> None:
    (one_seed,) = compare_routes(routes(1.0, 1.0, spread=0.0, seeds=1))
    assert one_seed.verdict == "not_enough_data"
    assert "1 seed in common" in one_seed.reason
    (one_alpha,) = compare_routes([c for c in routes(1.0, 1.0, spread=0.0) if c.alpha == 8.0])
    assert "at least two α" in one_alpha.reason


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


def test_a_loss_of_zero_has_no_relative_cost() -> None:
    cells = make_cells(
        RunOutcome("lora", 4, alpha, alpha / 4, LR, 0, "finished", loss)
        for alpha, loss in {4.0: 0.5, 8.0: 0.25, 32.0: 0.0}.items()
    )
    costs = {cost.rule: cost.cost for cost in rule_costs(cells, method="lora", lr=LR)}
    assert costs["α = 32"] == 0.0
    assert costs["α = r"] is None


def test_two_routes_to_a_loss_of_zero_are_equivalent() -> None:
    outcomes = [
        RunOutcome("lora", 4, alpha, alpha / 4, lr, seed, "finished", 0.0 if alpha * lr > 0.05 else 0.5)
        for alpha in (4.0, 64.0)
        for lr in (LR, 16 * LR)
        for seed in range(3)
    ]
    (verdict,) = compare_routes(make_cells(outcomes))
    assert (verdict.verdict, verdict.difference) == ("equivalent", 0.0)


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
    assert measured.alpha == pytest.approx(512, rel=0.02)
    assert "lora_alpha=510" in measured.snippet
    between = recommend(laws, cells, rank=8)
    assert between.basis == "interpolated"
    assert between.alpha == pytest.approx(128 * math.sqrt(8), rel=0.02)
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
