"""Laws through optima whose draws are planted, against generalised least squares and figures by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from lora_alpha.analysis.curves import CurveDraws
from lora_alpha.analysis.optimum import Located, Optimum
from lora_alpha.analysis.power_law import (
    SCATTERS,
    Trend,
    _gls,
    _quantile,
    compare_exponents,
    fit_power_law,
)
from lora_alpha.analysis.surface import NUM_DRAWS

POINT = Optimum(
    method="lora", rank=1, lr=2e-4, alpha=None, lr_ratio=1.0, target="alpha", value=1, low=None, high=None,
    scale=1, basin_low=1, basin_high=2, basin_open_low=False, basin_open_high=False, basin_octaves=1, loss=1,
    censored="", bound_low=None, bound_high=None, num_seeds=3, num_diverged=0,
)  # fmt: skip


def located(k: int, value: float, width: float = 0.0, *, searched: tuple[float, float] = (0, 20)) -> Located:
    """An optimum at rank 2^k and log₂ value, with normal draws of a standard deviation."""
    where = value + width * np.random.default_rng(100 + k).standard_normal(NUM_DRAWS)
    at = np.linspace(*searched, 41)
    log = -0.5 * ((at[:, None] - where) / max(width, 0.1)) ** 2
    grid = np.linspace(0, 20, 161)
    draws = CurveDraws(where, grid, np.abs(grid[:, None] - where), at, log)
    return Located(dataclasses.replace(POINT, rank=2**k, value=2.0**value), draws)


def points(y: Sequence[float], width: float = 0.0, *, first: int = 0) -> list[Located]:
    return [located(first + k, value, width) for k, value in enumerate(y)]


def high_edge(k: int, last: float) -> Located:
    """A curve that says no more than that its optimum lies above the grid's last cell."""
    at = np.linspace(last - 6, last + 6, 97)
    log = np.repeat(np.minimum(at - last, 0)[:, None] * 20, NUM_DRAWS, axis=1)
    draws = CurveDraws(np.full(NUM_DRAWS, last + 1.0), at, np.zeros((97, NUM_DRAWS)), at, log)
    return Located(
        dataclasses.replace(
            POINT, rank=2**k, value=2.0**last, censored="high_edge", bound_low=2.0 ** (last - 1)
        ),
        draws,
    )


def test_generalised_least_squares_by_its_formula() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    covariance, x, y = root @ root.T, np.arange(5.0), rng.normal(size=5)
    for degree in (0, 1, 2):
        found = _gls(x, y, covariance, 0.25, degree)
        design = np.vander(x, degree + 1, increasing=True)
        inverse = np.linalg.inv(covariance + 0.0625 * np.eye(5))
        theta = np.linalg.inv(design.T @ inverse @ design) @ design.T @ inverse @ y
        left = y - design @ theta
        log = -0.5 * left @ inverse @ left + 0.5 * math.log(np.linalg.det(inverse))
        np.testing.assert_allclose(found.theta, theta, rtol=1e-8)
        np.testing.assert_allclose(found.hat @ y, theta, rtol=1e-8)
        assert found.log_likelihood == pytest.approx(log)
        evidence = log - 0.5 * math.log(np.linalg.det(design.T @ inverse @ design))
        assert found.log_marginal == pytest.approx(evidence)


def test_optima_without_doubt_on_a_line_are_that_law() -> None:
    fit = fit_power_law(points([7.0, 7.5, 8.0, 8.5]))
    assert fit.exponent == pytest.approx(0.5, abs=1e-3)
    assert fit.coefficient == pytest.approx(128, rel=1e-3)
    assert fit.exponent_low == pytest.approx(0.5, abs=0.05)
    assert fit.exponent_high == pytest.approx(0.5, abs=0.05)
    assert fit.scatter_octaves < 1e-3
    assert (fit.bend, fit.bend_low, fit.bend_high, fit.bent, fit.bends) == (None, None, None, None, False)


def test_doubt_about_optima_is_doubt_about_the_law() -> None:
    """Independent optima of standard deviation 0.1: that of p is 0.1 / √Σ(x - x̄)²."""
    fit = fit_power_law(points([7 + 0.5 * k for k in range(7)], 0.1))
    half = 1.96 * 0.1 / math.sqrt(28)
    assert fit.exponent == pytest.approx(0.5, abs=half)
    assert half < (fit.exponent_high - fit.exponent_low) / 2 < 2 * half
    assert fit.coefficient_low < 128 < fit.coefficient_high
    for rank, item in ((1, 7.0), (8, 8.5), (64, 10.0)):
        _, low, high = fit.predict([rank])
        assert low[0] < 2.0**item < high[0]


def test_a_law_that_fits_badly_is_less_sure_than_its_optima() -> None:
    fit = fit_power_law(points([7.0, 8.2, 7.4, 9.3, 8.4]))
    assert fit.exponent_high - fit.exponent_low > 0.3
    x, y = np.arange(5.0), np.array([7.0, 8.2, 7.4, 9.3, 8.4])
    assert fit.exponent == pytest.approx(np.polyfit(x, y, 1)[0], abs=0.06)
    left = y - fit.line.at(x)[0]
    assert fit.scatter_octaves == pytest.approx(math.sqrt((left**2).mean()))


def test_scatter_about_the_law_is_seen_beyond_the_doubt_of_each_optimum() -> None:
    """Optima known to 0.15 that scatter by 0.4: p is known to 0.4 / √10, not to 0.15 / √10."""
    fit = fit_power_law(points([7 + 0.4, 7.5 - 0.4, 8 - 0.4, 8.5 + 0.4, 9 - 0.2], 0.15))
    assert fit.exponent_high - fit.exponent_low > 1.4 * 2 * 1.96 * 0.15 / math.sqrt(10)


def test_a_rank_whose_optimum_lies_above_its_grid_makes_low_laws_unlikely() -> None:
    inside = points([7.0, 7.2, 7.4], 0.4)
    plain = fit_power_law(inside)
    pulled = fit_power_law([*inside, high_edge(5, 10.0)])
    idle = fit_power_law([*inside, high_edge(5, 4.0)])
    assert pulled.exponent > plain.exponent + 0.1
    assert pulled.exponent_low > plain.exponent_low + 0.1
    assert idle.exponent == pytest.approx(plain.exponent, abs=0.1)
    assert (pulled.bend, pulled.bent) == (None, None)


def test_a_rank_with_bounds_alone_keeps_the_law_between_them() -> None:
    inside = points([7.0, 7.2, 7.4], 0.4)
    cliff = dataclasses.replace(POINT, rank=32, censored="cliff", bound_low=2.0**9.5, bound_high=2.0**10.5)
    fit = fit_power_law([*inside, Located(cliff, None)])
    assert fit_power_law(inside).predict([32])[0][0] < 2**9
    assert 2**9.3 < fit.predict([32])[0][0] < 2**10.7


def test_a_bend_is_found_and_predicted_with() -> None:
    x = np.arange(7.0)
    fit = fit_power_law(points(list(7 + 0.5 * x + 0.15 * (x - 3) ** 2), 0.05))
    assert fit.bends
    assert fit.bent is not None
    assert fit.bend == pytest.approx(0.15, abs=0.02)
    value, low, high = fit.predict([1, 8, 64])
    np.testing.assert_allclose(np.log2(value), [8.35, 8.5, 11.35], atol=0.15)
    assert (low < value).all()
    assert (value < high).all()
    straight = dataclasses.replace(fit, bend_low=-0.1)
    assert not straight.bends
    np.testing.assert_allclose(np.log2(straight.predict([4])[0]), straight.line.at(np.array([2.0]))[0])
    four = fit_power_law(points([7.0, 7.5, 8.0, 8.5], 0.05))
    assert (four.bend, four.bent) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "bends"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.2, False), (0.0, 0.2, False), (None, 0.2, False)],
)
def test_a_law_bends_where_the_interval_excludes_zero(low: float | None, high: float, bends: bool) -> None:
    fit = fit_power_law(points([1.0, 2.0, 3.0]))
    assert dataclasses.replace(fit, bend_low=low, bend_high=high).bends is bends
    assert dataclasses.replace(fit, bend_low=high, bend_high=low).bends is bends


def test_a_trend_by_hand() -> None:
    trend = Trend((1.0, 2.0), ((0.04, -0.01), (-0.01, 0.01)), 2.0)
    centre, half = trend.at(np.array([0.0, 3.0]))
    np.testing.assert_allclose(centre, [1.0, 7.0])
    np.testing.assert_allclose(half, [2 * 0.2, 2 * math.sqrt(0.04 - 0.06 + 0.09)])
    np.testing.assert_array_equal(Trend((1.0,), ((-1e-20,),), 3.0).at(np.array([0.0]))[1], 0.0)


def test_a_weighted_quantile_is_where_the_weights_reach_it() -> None:
    draws = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    weights = np.array([0.5, 0.1, 0.4])
    np.testing.assert_array_equal(_quantile(draws, weights, 0.45), [2.0, 1.0])
    np.testing.assert_array_equal(_quantile(draws, weights, 0.55), [3.0, 2.0])


def test_scores_of_exponents_are_akaikes() -> None:
    optima = points([7 + 0.5 * k + 0.1 * (-1) ** k for k in range(6)], 0.05)
    x, where = np.arange(6.0), np.stack([item.draws.where for item in optima if item.draws])
    scores = {model.name: model for model in compare_exponents(optima)}
    assert list(scores) == ["p free", "p = 0", "p = 1/2", "p = 1", "bend"]
    for name, slope in (("p = 0", 0.0), ("p = 1/2", 0.5)):
        best = -math.inf
        for scatter in SCATTERS:
            total = np.cov(where) + (scatter**2 + 1e-8) * np.eye(6)
            inverse = np.linalg.inv(total)
            y = where.mean(1) - slope * x
            left = y - (inverse @ y).sum() / inverse.sum()
            best = max(best, -0.5 * left @ inverse @ left - 0.5 * np.linalg.slogdet(total)[1])
        assert scores[name].aicc == pytest.approx(2 * 2 - 2 * best + 2 * 2 * 3 / (6 - 2 - 1))
        assert scores[name].exponent == slope
    assert scores["p = 1/2"].delta == 0
    assert scores["p = 0"].delta > 5
    assert scores["bend"].exponent is None
    assert [model.name for model in compare_exponents(optima[:5])] == ["p free", "p = 0", "p = 1/2", "p = 1"]
    assert compare_exponents(optima[:4]) == ()
    assert compare_exponents([*optima, high_edge(7, 9.0)]) == ()
