"""α at another learning rate: the exponent is found where it can be, and is as uncertain as it is."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lora_alpha.analysis.law import Law, fit_laws
from lora_alpha.analysis.lr_transfer import KAPPA_HALF_WIDTH, lr_transfer
from lora_alpha.analysis.recommend import recommend
from lora_alpha.errors import FitError
from tests.lora_alpha.analysis.planted import LR, planted_cells

ERROR = 0.15  # octaves


@cache
def a_law() -> Law:
    (law,) = fit_laws(planted_cells(np.random.default_rng(0), num_seeds=2, ranks=(1, 2, 4)))
    return law


def planted_laws(
    rng: np.random.Generator,
    kappa: float,
    *,
    lrs: tuple[float, ...],
    ranks: tuple[int, ...] = (2, 8, 32),
    bow: float = 0.0,
) -> list[Law]:
    """Optima at α* = 128·√r·(η/η0)^κ whose errors their own intervals tell, and no cells."""
    laws = []
    for lr in lrs:
        away = math.log2(lr / LR)
        optima = []
        for rank in ranks:
            truth = 7 + 0.5 * math.log2(rank) + kappa * away + bow * away**2
            value = 2.0 ** (truth + rng.normal(0, ERROR))
            half = 2.0 ** (1.96 * ERROR)
            optima.append(
                replace(
                    a_law().optima[0], rank=rank, lr=lr, value=value, low=value / half, high=value * half,
                    basin_low=value / 2, basin_high=value * 2, censored="",
                )
            )  # fmt: skip
        laws.append(replace(a_law(), lr=lr, optima=tuple(optima), fit=None, num_seeds=3))
    return laws


def coverage(kappa: float, factor: float, **world: object) -> tuple[float, float]:
    """How often the interval at ``factor`` times the swept η holds the truth, and its median octaves."""
    rng = np.random.default_rng(3)
    hits, widths = 0, []
    for _ in range(60):
        found = recommend(planted_laws(rng, kappa, **world), [], rank=8, lr=LR * factor)  # type: ignore[arg-type]
        assert found.alpha_low is not None
        assert found.alpha_high is not None
        hits += found.alpha_low <= 2 ** (8.5 + kappa * math.log2(factor)) <= found.alpha_high
        widths.append(math.log2(found.alpha_high / found.alpha_low))
    return hits / 60, float(np.median(widths))


@pytest.mark.parametrize("kappa", [-0.5, -1.0, -1.5])
@pytest.mark.parametrize("factor", [2.0, 10.0])
def test_the_truth_is_covered_at_another_learning_rate(kappa: float, factor: float) -> None:
    one, wide = coverage(kappa, factor, lrs=(LR,))
    two, narrow = coverage(kappa, factor, lrs=(LR / 4, LR))
    single, _ = coverage(kappa, factor, lrs=(LR / 4, LR), ranks=(8,))
    assert min(one, two, single) >= 0.9
    assert narrow < (0.85 if factor == 2 else 0.5) * wide  # what was estimated is worth something


def test_kappa_is_estimated_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    found = [lr_transfer(planted_laws(rng, -0.5, lrs=(LR / 4, LR, LR * 4))) for _ in range(100)]
    assert abs(np.mean([one.kappa for one in found]) + 0.5) < 0.03
    assert sum(one.interval[0] <= -0.5 <= one.interval[1] for one in found) >= 92
    assert {one.num_lrs for one in found} == {3}
    assert np.median([one.interval[1] - one.interval[0] for one in found]) < 0.35


def test_the_posterior_is_what_brute_force_gives() -> None:
    laws = planted_laws(np.random.default_rng(5), -0.7, lrs=(LR / 4, LR, LR * 4), ranks=(2, 8))
    found = lr_transfer(laws)
    points = [(math.log2(o.lr or 0), o.rank, math.log2(o.value)) for law in laws for o in law.optima]
    x, rank, y = (np.array(column) for column in zip(*points, strict=True))
    design = np.stack([rank == 2, rank == 8, x], axis=1).astype(float)
    # Levels with a standard deviation of a thousand octaves are free.
    prior = np.diag([1e6, 1e6, (KAPPA_HALF_WIDTH / 1.959964) ** 2])
    mean = design @ [0, 0, -1.0]
    log, kappas = [], []
    for scatter in found.scatters:
        covariance = design @ prior @ design.T + (ERROR**2 + scatter**2) * np.eye(len(y))
        solved = np.linalg.solve(covariance, y - mean)
        fit = np.linalg.slogdet(covariance)[1] + (y - mean) @ solved
        log.append(-0.5 * (fit + (scatter / 0.25) ** 2))
        kappas.append(-1.0 + (prior @ design.T @ solved)[2])
    weights = np.exp(np.array(log) - max(log))
    np.testing.assert_allclose(found.weights, weights / weights.sum(), rtol=1e-4)
    np.testing.assert_allclose(found.means, kappas, rtol=1e-4)


def test_one_learning_rate_assumes_the_product_and_says_so() -> None:
    laws = planted_laws(np.random.default_rng(0), -1.0, lrs=(LR,))
    transfer = lr_transfer(laws)
    assert (transfer.kappa, transfer.num_lrs) == (-1.0, 0)
    assert transfer.interval == pytest.approx((-1 - KAPPA_HALF_WIDTH, -1 + KAPPA_HALF_WIDTH), abs=2e-3)
    found = recommend(laws, [], rank=8, lr=2 * LR)
    assert "keeping α·η" in found.warnings[0]
    assert found.basis == "extrapolated"


def test_beyond_the_swept_learning_rates_the_interval_grows_and_ends_at_ten() -> None:
    laws = planted_laws(np.random.default_rng(0), -0.8, lrs=(LR / 4, LR))
    widths = []
    for factor in (1.0, 1.5, 3.0, 9.9):
        found = recommend(laws, [], rank=8, lr=LR * factor)
        assert found.alpha_high is not None
        widths.append(found.alpha_high / (found.alpha_low or 1))
        assert any("outside the swept" in warning for warning in found.warnings) == (factor > 1)
    assert widths == sorted(widths)
    assert recommend(laws, [], rank=8, lr=LR / 2).basis == "interpolated"
    with pytest.raises(FitError, match="more than 10 times off"):
        recommend(laws, [], rank=8, lr=LR * 10.1)


def test_laws_without_a_common_rank_are_compared_in_their_middle() -> None:
    options = {"num_seeds": 3, "noise": 0.001, "shared": 0.0, "own": 0.0}
    laws = [
        *fit_laws(planted_cells(np.random.default_rng(0), ranks=(2, 8, 32), **options)),  # type: ignore[arg-type]
        *fit_laws(planted_cells(np.random.default_rng(1), ranks=(4, 16, 64), coefficient=256.0, **options)),  # type: ignore[arg-type]
    ]
    laws[1] = replace(
        laws[1], optima=tuple(replace(optimum, lr=LR / 4) for optimum in laws[1].optima), lr=LR / 4
    )
    found = lr_transfer(laws)
    assert found.num_lrs == 2
    assert found.interval[0] < -0.5 < found.interval[1]


def test_censored_optima_say_nothing_of_kappa() -> None:
    laws = planted_laws(np.random.default_rng(0), -0.5, lrs=(LR / 4, LR), ranks=(8,))
    edge = replace(laws[1], optima=(replace(laws[1].optima[0], censored="high_edge", low=None, high=None),))
    assert lr_transfer([laws[0], edge]).num_lrs == 0
