"""Laws through a few points whose every figure follows by hand or from a slow, obvious likelihood."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats

from lora_alpha.analysis.law import Law, fit_law, laws_through
from lora_alpha.analysis.optimum import Optimum
from lora_alpha.analysis.power_law import LawFit, Spread

POINT = Optimum(
    method="rslora", rank=1, lr=3e-4, alpha=None, lr_ratio=2.0, target="alpha", value=1, low=None, high=None,
    scale=1, basin_low=1, basin_high=2, basin_open_low=False, basin_open_high=False, basin_octaves=1, loss=1,
    censored="", bound_low=None, bound_high=None, num_seeds=3, num_diverged=1,
)  # fmt: skip
T1 = 12.7062047  # Student's t at 97.5 % with one degree of freedom
T2 = 4.3026527


def points(y: Sequence[float], *removed: Sequence[float], first: int = 0) -> list[Optimum]:
    """Optima at ranks 2^first, 2^(first+1), … with log₂ values ``y``, and with each seed left out."""
    return [
        dataclasses.replace(
            POINT,
            rank=2 ** (first + k),
            value=2.0**value,
            per_seed_removed={seed: 2.0 ** values[k] for seed, values in enumerate(removed)},
        )
        for k, value in enumerate(y)
    ]


def edge(k: int, low: float | None, high: float | None) -> Optimum:
    """A censored optimum at rank 2^k between two log₂ values."""
    bounds = [None if bound is None else 2.0**bound for bound in (low, high)]
    return dataclasses.replace(
        POINT, rank=2**k, value=1.0, censored="cliff", bound_low=bounds[0], bound_high=bounds[1]
    )


def fit_of(law: Law) -> LawFit:
    assert law.fit is not None
    return law.fit


def log_likelihood(optima: Sequence[Optimum], intercept: float, slope: float, scatter: float) -> float:
    """Term by term: a density where an optimum was seen, a probability where it is only bounded."""
    total = 0.0
    for item in optima:
        law = stats.norm(intercept + slope * math.log2(item.rank), scatter)
        if not item.censored:
            total += law.logpdf(math.log2(item.value))
        else:
            below = 0.0 if item.bound_low is None else law.cdf(math.log2(item.bound_low))
            up_to = 1.0 if item.bound_high is None else law.cdf(math.log2(item.bound_high))
            total += math.log(max(up_to - below, 1e-300))
    return float(total)


def test_a_law_by_hand() -> None:
    """(0, 1), (1, 3), (2, 4): slope 3/2, intercept 7/6, residuals -1/6, 1/3, -1/6.

    Without one of two seeds the law is up, or down, by 0.5 and steeper, or flatter, by 0.1.
    """
    y = [1.0, 3.0, 4.0]
    up, down = ([value + sign * (0.5 + 0.1 * k) for k, value in enumerate(y)] for sign in (1, -1))
    law = fit_law(points(y, up, down)[::-1])
    fit = fit_of(law)
    half_c, half_p = T1 * 0.5, T1 * math.sqrt(3 / 36)  # seeds are less sure of C, the line less of p
    assert dataclasses.replace(fit, spreads=()) == LawFit(
        exponent=pytest.approx(1.5),
        exponent_low=pytest.approx(1.5 - half_p),
        exponent_high=pytest.approx(1.5 + half_p),
        coefficient=pytest.approx(2 ** (7 / 6)),
        coefficient_low=pytest.approx(2 ** (7 / 6 - half_c)),
        coefficient_high=pytest.approx(2 ** (7 / 6 + half_c)),
        scatter_octaves=pytest.approx(math.sqrt(1 / 18)),
    )
    seeds, line = fit.spreads
    assert (seeds.freedom, line.freedom) == (1, 1)
    np.testing.assert_allclose(seeds.covariance, [[0.25, 0.05], [0.05, 0.01]])
    np.testing.assert_allclose(line.covariance, np.array([[5, -3], [-3, 3]]) / 36)
    value, low, high = fit.predict([1, 8])
    centre, half = np.array([7 / 6, 7 / 6 + 4.5]), T1 * np.array([0.5, 0.8])
    np.testing.assert_allclose(np.log2(value), centre)
    np.testing.assert_allclose(np.log2(low), centre - half)
    np.testing.assert_allclose(np.log2(high), centre + half)
    assert dataclasses.replace(law, band=None, rivals=(), verdict="") == Law(
        method="rslora",
        lr=3e-4,
        alpha=None,
        lr_ratio=2.0,
        target="alpha",
        fit=fit,
        fit_uncensored=fit,
        band=None,
        optima=tuple(points(y, up, down)),
        models=(),
        rules=(),
        rivals=(),
        num_ranks=3,
        num_censored=0,
        num_seeds=3,
        num_diverged=3,
        num_excluded=0,
        reasons=(),
        verdict="",
    )


def test_only_seeds_that_every_optimum_has_make_an_interval() -> None:
    y = [1.0, 2.0, 3.0]
    optima = points(y, y, [2.0, 3.0, 4.0])
    more = dataclasses.replace(
        optima[0], num_seeds=5, per_seed_removed={**optima[0].per_seed_removed, 9: 64.0}
    )
    law = fit_law([more, *optima[1:]])
    assert fit_of(law) == fit_of(fit_law(optima))
    assert law.num_seeds == 3
    alone = fit_of(fit_law(points(y, y)))
    assert (alone.spreads, alone.exponent_low, alone.coefficient_high) == ((), None, None)
    np.testing.assert_allclose(alone.predict([1, 16])[0], [2.0, 32.0])
    assert alone.predict([1])[1:] == (None, None)


def test_each_curve_has_its_own_law() -> None:
    others: list[dict[str, object]] = [
        {"method": "lora"},
        {"lr_ratio": 1.0},
        {"lr": 1e-4},
        {},
        {"target": "lr", "lr": None, "alpha": 8.0},
    ]
    optima = [
        dataclasses.replace(point, **changes)  # type: ignore[arg-type]
        for changes in others[::-1]
        for point in points([1.0, 2.0, 3.0])
    ]
    found = [(law.method, law.lr_ratio, law.fixed, law.target, law.num_ranks) for law in laws_through(optima)]
    assert found == [
        ("lora", 2.0, 3e-4, "alpha", 3),
        ("rslora", 1.0, 3e-4, "alpha", 3),
        ("rslora", 2.0, 1e-4, "alpha", 3),
        ("rslora", 2.0, 3e-4, "alpha", 3),
        ("rslora", 2.0, 8.0, "lr", 3),
    ]


def test_a_bend_by_hand() -> None:
    """0.25 of curvature; leaving a seed out changes it by ±0.05 and the rest by more."""
    away = np.arange(5) - 2.0
    y = 10 + 0.5 * away + 0.25 * away**2
    change = 0.3 + 0.2 * away + 0.05 * away**2
    fit = fit_of(fit_law(points(y, y + change, y - change, first=1)))
    assert fit.bend == pytest.approx(0.25)
    assert fit.bend_low == pytest.approx(0.25 - T1 * 0.05)
    assert fit.bend_high == pytest.approx(0.25 + T1 * 0.05)
    assert not fit.bends


def test_a_bend_that_fits_badly_is_less_sure_than_its_seeds() -> None:
    """Residuals of a cubic, orthogonal to every parabola: 2 degrees of freedom, variance 0.05."""
    away = np.arange(5) - 2.0
    y = 10 + 0.5 * away + 0.3 * away**2 + 0.1 * np.array([-1, 2, 0, -2, 1])
    fit = fit_of(fit_law(points(y, y, y, first=1)))
    half = T2 * math.sqrt(0.05 / 14)
    assert (fit.bend_low, fit.bend_high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))
    assert fit.bends


def test_a_bend_needs_five_optima_inside_the_grid_and_an_interval_two_seeds() -> None:
    y = [1.0, 2.0, 3.0, 4.0, 6.0]
    assert fit_of(fit_law(points(y[:4], y, y))).bend is None
    assert fit_of(fit_law([*points(y, y, y), edge(6, 3.0, None)])).bend is None
    one_seed = fit_of(fit_law(points(y, y)))
    assert one_seed.bend == pytest.approx(1 / 7)
    assert (one_seed.bend_low, one_seed.bend_high, one_seed.bends) == (None, None, False)


@pytest.mark.parametrize(
    ("low", "high", "bends"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.2, False), (0.0, 0.2, False), (None, 0.2, False)],
)
def test_a_law_bends_where_the_interval_excludes_zero(low: float | None, high: float, bends: bool) -> None:
    fit = fit_of(fit_law(points([1.0, 2.0, 3.0])))
    assert dataclasses.replace(fit, bend_low=low, bend_high=high).bends is bends
    assert dataclasses.replace(fit, bend_low=high, bend_high=low).bends is bends


def test_rounding_below_zero_is_a_width_of_zero() -> None:
    assert Spread(((-1e-20,),), 3).half_width(np.array([1.0])) == 0.0


CENSORED = [
    *points([5.0, 5.9, 6.0, 7.1], [5.2, 5.9, 6.1, 7.2], [4.8, 5.9, 5.9, 7.0], first=1),
    edge(0, None, 4.0),
    edge(5, 7.0, None),
    edge(6, 7.0, 7.5),
]


def test_a_censored_law_is_the_most_likely_one() -> None:
    law = fit_law(CENSORED)
    fit = fit_of(law)
    found = [math.log2(fit.coefficient), fit.exponent, fit.scatter_octaves]
    best = log_likelihood(CENSORED, *found)
    for index in range(3):
        for step in (-3e-3, 3e-3):
            moved = [value + step * (place == index) for place, value in enumerate(found)]
            assert log_likelihood(CENSORED, *moved) < best
    inside = fit_law(CENSORED[:4])
    assert law.fit_uncensored == dataclasses.replace(fit_of(inside))
    assert (law.num_ranks, law.num_censored, law.num_excluded) == (7, 3, 0)
    assert [optimum.rank for optimum in law.optima] == [1, 2, 4, 8, 16, 32, 64]


def test_seeds_move_a_censored_law_with_its_edges() -> None:
    """The spread over seeds is that of whole fits, each with the edges in it."""
    fit = fit_of(fit_law(CENSORED))
    without = []
    for seed in (0, 1):
        moved = [
            dataclasses.replace(o, value=o.per_seed_removed[seed]) if not o.censored else o for o in CENSORED
        ]
        one = fit_of(fit_law(moved))
        without.append([math.log2(one.coefficient), one.exponent])
    apart = np.array(without[0]) - np.array(without[1])
    np.testing.assert_allclose(fit.spreads[0].covariance, np.outer(apart, apart) / 4, rtol=1e-6)
    residuals = [
        math.log2(o.value) - math.log2(fit.coefficient) - fit.exponent * math.log2(o.rank)
        for o in CENSORED[:4]
    ]
    x = np.stack([np.ones(4), [1, 2, 3, 4]], axis=1)
    expected = np.linalg.inv(x.T @ x) * np.square(residuals).sum() / 2
    np.testing.assert_allclose(fit.spreads[1].covariance, expected)
    assert fit.spreads[1].freedom == 2


def test_two_optima_and_an_edge_leave_no_freedom_to_the_line() -> None:
    optima = [*points([1.0, 2.0], [1.1, 2.0], [0.9, 2.0]), edge(2, 2.5, None)]
    law = fit_law(optima)
    assert len(fit_of(law).spreads) == 1
    assert law.fit_uncensored is None


def test_optima_on_a_line_scatter_by_the_least_that_can_be_told_from_zero() -> None:
    assert fit_of(fit_law([*points([1.0, 2.0, 3.0]), edge(3, 3.5, 4.5)])).scatter_octaves == pytest.approx(
        0.02, rel=1e-3
    )


def test_too_few_optima_are_excluded_and_say_why() -> None:
    few = fit_law(points([1.0, 2.0]))
    assert few.reasons == ("2 ranks have an optimum: a law needs at least 3",)
    assert (few.fit, few.fit_uncensored, few.num_excluded, few.models) == (None, None, 2, ())
    outside = fit_law([*points([1.0]), edge(1, 1.0, None), edge(2, 1.0, None)])
    assert outside.reasons == (
        "1 of 3 optima lie inside the grid: a law needs at least 2. Extend the α grid beyond its edges",
    )
    assert len(fit_law(points([1.0])).reasons) == 2


@pytest.mark.parametrize("bent", [0.3, 0.0], ids=["scattered", "on a line"])
def test_scores_of_exponents_are_akaikes(bent: float) -> None:
    """AICc of least squares in closed form; the scatter counts as a parameter and is 0.02 at least."""
    y = np.array([0.0, 0.5, 1.0, 1.5, 2.0]) + bent * np.array([1, -1, 0, 1, 0])
    x = np.arange(5.0)
    law = fit_law(points(list(y)))
    expected = {}
    for name, given in {"p free": None, "p = 0": 0.0, "p = 1/2": 0.5, "p = 1": 1.0}.items():
        slope = float(np.polyfit(x, y, 1)[0]) if given is None else given
        squares = np.square(y - y.mean() - slope * (x - x.mean()))
        scatter = max(math.sqrt(squares.mean()), 0.02)
        likelihood = -squares.sum() / (2 * scatter**2) - 5 * math.log(scatter * math.sqrt(2 * math.pi))
        k = 3 if given is None else 2
        expected[name] = (slope, 2 * k - 2 * likelihood + 2 * k * (k + 1) / (5 - k - 1))
    assert [model.name for model in law.models] == list(expected)
    least = min(aicc for _, aicc in expected.values())
    for model in law.models:
        slope, aicc = expected[model.name]
        assert model.exponent == pytest.approx(slope)
        assert model.aicc == pytest.approx(aicc)
        assert model.delta == pytest.approx(aicc - least, abs=1e-9)


def test_scores_count_censored_optima_by_their_likelihood() -> None:
    optima = [
        *points([5.0, 5.9, 6.0, 7.1, 7.0], first=1),
        edge(0, None, 4.0),
        edge(6, 7.0, 7.5),
        edge(7, 8.0, None),
    ]
    for model in fit_law(optima).models:
        given = None if model.name == "p free" else model.exponent
        start = [5.0, math.log(0.3), *([0.4] if given is None else [])]

        def unlikely(theta: np.ndarray, given: float | None = given) -> float:
            slope = theta[2] if given is None else given
            return -log_likelihood(optima, theta[0], slope, math.exp(theta[1]))

        best = optimize.minimize(unlikely, start, method="BFGS")
        k = len(start)
        assert model.aicc == pytest.approx(2 * k + 2 * best.fun + 2 * k * (k + 1) / (8 - k - 1), abs=1e-4)
