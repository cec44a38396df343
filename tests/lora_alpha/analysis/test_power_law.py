from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate, stats

from lora_alpha.analysis.law import fit_law
from lora_alpha.analysis.optimum import Optimum
from lora_alpha.analysis.power_law import _log_likelihood
from tests.lora_alpha.analysis.planted import planted_law

WORLDS = 120
# 120 worlds at a true coverage of 95 % show fewer than this share once in 2,000 times.
LEAST = float(stats.binom.ppf(0.0005, WORLDS, 0.95)) / WORLDS
POINT = Optimum(
    method="lora", rank=1, lr=2e-4, alpha=None, lr_ratio=1.0, target="alpha", value=1, low=None, high=None,
    scale=1, basin_low=1, basin_high=2, basin_open_low=False, basin_open_high=False, basin_octaves=1, loss=1,
    censored="", bound_low=None, bound_high=None, num_seeds=3, num_diverged=0,
)  # fmt: skip


def optimum(rank: int, value: float, **changes: object) -> Optimum:
    return dataclasses.replace(POINT, rank=rank, value=value, **changes)


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(
    "surface", [{}, {"noise": 0.015}, {"shared": 0.75}], ids=["plain", "noisy", "shared"]
)
def test_intervals_of_planted_laws_cover_at_their_nominal_rate(
    num_seeds: int, surface: dict[str, float]
) -> None:
    rng = np.random.default_rng(num_seeds)
    fits = [planted_law(rng, num_seeds=num_seeds, **surface).fit for _ in range(WORLDS)]
    known = [fit for fit in fits if fit is not None and fit.exponent_low is not None]
    assert len(known) == WORLDS
    p = np.mean([fit.exponent_low <= 0.5 <= fit.exponent_high for fit in known])
    c = np.mean([fit.coefficient_low <= 128 <= fit.coefficient_high for fit in known])
    bands = [fit.predict([64]) for fit in known]
    band = np.mean(
        [low[0] <= 128 * 8 <= high[0] for _, low, high in bands if low is not None and high is not None]
    )
    assert min(p, c, band) >= LEAST
    # Not by being endless: the interval tells √r from constant and from proportional.
    widths = [fit.exponent_high - fit.exponent_low for fit in known]
    assert np.median(widths) < 0.6


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_a_straight_law_is_seldom_said_to_bend_and_a_bent_one_often(num_seeds: int) -> None:
    rng = np.random.default_rng(10 + num_seeds)
    straight = [planted_law(rng, num_seeds=num_seeds).fit for _ in range(WORLDS)]
    bent = [planted_law(rng, num_seeds=num_seeds, bend=0.15).fit for _ in range(40)]
    assert np.mean([fit.bends for fit in straight if fit]) <= 1 - LEAST
    assert np.mean([fit.bends for fit in bent if fit]) > 0.5


def test_a_law_that_fits_badly_is_less_sure_than_its_seeds() -> None:
    """Five seeds agree exactly on optima that lie on no line."""
    values = {1: 100.0, 2: 70.0, 4: 60.0, 8: 90.0, 16: 200.0, 32: 500.0}
    law = fit_law([optimum(r, v, per_seed_removed=dict.fromkeys(range(5), v)) for r, v in values.items()])
    assert law.fit is not None
    x, y = np.log2(list(values)), np.log2(list(values.values()))
    plain = stats.linregress(x, y)
    half = stats.t.ppf(0.975, 4) * plain.stderr
    assert law.fit.exponent == pytest.approx(plain.slope, rel=1e-12)
    assert law.fit.exponent_low == pytest.approx(plain.slope - half, rel=1e-9)
    assert law.fit.exponent_high == pytest.approx(plain.slope + half, rel=1e-9)
    assert law.fit.bends


def test_one_seed_gives_a_law_without_an_interval() -> None:
    law = planted_law(np.random.default_rng(0), num_seeds=1)
    assert law.fit is not None
    assert law.fit.exponent == pytest.approx(0.5, abs=0.2)
    assert law.fit.exponent_low is None
    assert law.fit.predict([4])[1] is None


def test_censored_optima_pull_by_their_likelihood_alone() -> None:
    """A grid that ends below the optima of large ranks: the fit recovers p, the best cells do not."""
    rng = np.random.default_rng(3)
    found, naive = [], []
    for _ in range(40):
        law = planted_law(rng, num_seeds=3, exponent=1.0, grid=[2.0**k for k in range(3, 11)])
        assert law.num_censored >= 2
        assert law.num_excluded == 0
        assert {o.censored for o in law.optima} <= {"", "high_edge"}
        assert law.fit is not None
        found.append(law.fit.exponent)
        x, y = np.log2([o.rank for o in law.optima]), np.log2([o.value for o in law.optima])
        naive.append(stats.linregress(x, y).slope)
    assert np.mean(naive) < 0.75
    assert np.mean(found) == pytest.approx(1.0, abs=0.12)


def test_a_cliff_is_kept_between_its_neighbours() -> None:
    law = planted_law(np.random.default_rng(4), num_seeds=3, cliff_octaves=0.0)
    assert law.num_diverged > 0
    assert {o.censored for o in law.optima} == {"cliff"}
    assert law.fit is None
    assert law.num_excluded == len(law.optima)
    assert "inside the grid" in law.reasons[0]


def test_log_likelihood_equals_numerical_integration() -> None:
    x, y = np.array([0.0, 1.0, 3.0]), np.array([7.1, 7.4, 8.7])
    xc = np.array([4.0, 5.0, 6.0, 7.0])
    low = np.array([8.0, -np.inf, 9.0, 30.0])
    high = np.array([np.inf, 9.0, 10.0, np.inf])
    intercept, slope, scatter = 7.0, 0.5, 1.5

    def density(value: float, at: float) -> float:
        z = (value - intercept - slope * at) / scatter
        return math.exp(-z * z / 2) / (scatter * math.sqrt(2 * math.pi))

    expected = sum(math.log(density(v, at)) for at, v in zip(x, y, strict=True))
    for at, a, b in zip(xc, low, high, strict=True):
        mass, _ = integrate.quad(density, max(a, -40), min(b, 60), args=(at,), epsabs=0, epsrel=1e-10)
        expected += math.log(mass)
    found = _log_likelihood(intercept, slope, scatter, x, y, xc, low, high)
    assert found == pytest.approx(expected, rel=1e-9)


def test_candidates_are_compared_from_five_ranks_on() -> None:
    exact = [optimum(r, 100 * r**0.5 * (1 + 0.02 * (-1) ** i)) for i, r in enumerate((1, 2, 4, 8, 16))]
    scores = {model.name: model.delta for model in fit_law(exact).models}
    assert scores["p = 1/2"] == 0
    assert scores["p = 0"] > 10
    assert scores["p = 1"] > 10
    assert fit_law(exact[:4]).models == ()


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_too_few_ranks_say_so(num_ranks: int) -> None:
    law = fit_law([optimum(2**k, 100.0) for k in range(num_ranks)])
    assert law.fit is None
    assert "a law needs at least 3" in law.reasons[0]
