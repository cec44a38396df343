"""What rules cost: measured cells in the metric's unit, and what the curve between them says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.law import fit_laws, fit_laws_and_draws
from lora_alpha.analysis.rules import RuleCost, alpha_costs
from lora_alpha.analysis.yardstick import yardstick
from lora_alpha.metrics import Metric

LR = 2e-4
REWARD = Metric("reward", goal="max", unit="points")


def curve(
    loss: Callable[[float], float | None],
    *,
    alphas: tuple[float, ...] = tuple(2.0**k for k in range(3, 11)),
    noise: float = 0.01,
    seeds: int = 3,
    metric: Metric | None = None,
    rng: np.random.Generator | None = None,
) -> list[Cell]:
    """Cells of rank 8 whose losses at log₂ α are ``loss``; None diverges. Seeds differ by a level as well."""
    rng = rng or np.random.default_rng(0)
    level = rng.normal(0, 0.05, seeds)
    runs = []
    for alpha in alphas:
        for seed in range(seeds):
            at = loss(math.log2(alpha))
            value = None if at is None else at + level[seed] + rng.normal(0, noise)
            runs.append(
                RunOutcome("lora", 8, alpha, alpha / 8, LR, seed, "finished", value, diverged=value is None)
            )
    return make_cells(runs) if metric is None else make_cells(runs, metric=metric)


def costs(cells: list[Cell]) -> dict[str, RuleCost]:
    (law,) = fit_laws(cells)
    return {cost.rule: cost for cost in law.rules}


def test_losses_below_zero_cost_what_they_cost() -> None:
    cells = curve(lambda x: {4.0: -1.05, 6.0: -1.35, 8.0: -1.99}[x], alphas=(16, 64, 256), noise=0)
    twice = costs(cells)["α = 2r"]
    assert twice.excess == pytest.approx(0.94)
    assert twice.cost == pytest.approx(1.0)  # of the range
    assert twice.share_of == "of eval_loss's range over the sweep"
    moved = costs(curve(lambda x: {4.0: 2.95, 6.0: 2.65, 8.0: 2.01}[x], alphas=(16, 64, 256), noise=0))
    assert moved["α = 2r"].excess == pytest.approx(0.94)
    assert moved["α = 2r"].share_of == "of eval_loss"


def test_the_best_reward_is_the_highest() -> None:
    cells = curve(lambda x: -((x - 6) ** 2), metric=REWARD, noise=0)
    found = costs(cells)
    assert found["α = 2r"].excess == pytest.approx(4.0)
    assert found["α = 2r"].best_loss == max(cell.mean for cell in cells if cell.mean is not None)
    assert found["α = 2r"].regret == pytest.approx(4.0, abs=0.05)
    assert found["α = 2r"].unit == "points"


def test_a_rule_outside_the_measured_or_beside_diverged_runs_has_a_reason() -> None:
    found = costs(curve(lambda x: None if x > 7.5 else 1 + (x - 6) ** 2, alphas=(16, 64, 128, 512, 1024)))
    assert found["α = r"].reason == "outside the measured α, 16 to 128"
    assert found["α = r"].regret is None
    assert found["α = 256√r"].reason == "outside the measured α, 16 to 128"


def test_beyond_diverged_runs_nothing_is_estimated() -> None:
    gap = curve(
        lambda x: None if x == 5.0 else 1 + 0.1 * (x - 8) ** 2, alphas=tuple(2.0**k for k in range(3, 11))
    )
    found = costs(gap)
    assert found["α = 32"].diverged
    assert found["α = 32"].reason == "diverged runs stand between it and the best"
    assert found["α = 2r"].excess == pytest.approx(1.6, abs=0.05)
    assert (found["α = 2r"].regret, found["α = 2r"].reason) == (None, found["α = 32"].reason)
    (law,), drawn = fit_laws_and_draws(gap)
    draws = drawn[law.key][8]
    (beside,) = alpha_costs({"x": 200.0}, 8, gap, draws, yardstick(gap))
    assert beside.regret == pytest.approx(0.1 * (8 - math.log2(200)) ** 2, abs=0.02)
    (unknown,) = alpha_costs({"x": 200.0}, 8, gap, None, yardstick(gap))
    assert (unknown.regret, unknown.reason) == (None, "too few α measured at this rank")


def test_the_regret_of_a_planted_basin_is_covered() -> None:
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(3):
        cells = curve(lambda x: 1 + 0.05 * (x - 6.4) ** 2, noise=0.02, rng=rng)
        (law,), drawn = fit_laws_and_draws(cells)
        alphas = {str(x): 2.0**x for x in (4.3, 5.0, 6.4, 7.7, 9.0)}
        for found in alpha_costs(alphas, 8, cells, drawn[law.key][8], yardstick(cells)):
            assert found.regret_low is not None
            assert found.regret_high is not None
            assert found.regret_share == pytest.approx((found.regret or 0) / found.best_loss)
            truth = 0.05 * (float(found.rule) - 6.4) ** 2
            hits.append(found.regret_low - 1e-3 <= truth <= found.regret_high)
    assert sum(hits) >= 13
