"""The fit α* = C·r^p (or η* = C·r^p) to the optima of several ranks, censored ones included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.intervals import t_quantile
from lora_alpha.analysis.optimum import Optimum

CANDIDATES: dict[str, float] = {"p = 0": 0.0, "p = 1/2": 0.5, "p = 1": 1.0}
MIN_RANKS_FOR_AICC = 5
MIN_RANKS_FOR_BEND = 5
# Scatter of optima about the law cannot be told apart from zero below this (log₂ units): it keeps the
# censored likelihood bounded when three optima happen to lie on a line.
MIN_SCATTER = 0.02

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModelScore:
    """One candidate exponent: its AICc, and how much worse than the best candidate."""

    name: str
    exponent: float | None
    aicc: float
    delta: float


@dataclass(frozen=True)
class Spread:
    """Covariance of an estimate, in log₂ units, and its degrees of freedom."""

    covariance: tuple[tuple[float, ...], ...]
    freedom: int

    def half_width(self, direction: Array) -> Array:
        """Half the 95 % interval of ``direction · estimate``; directions (..., K)."""
        variance = np.einsum("...i,ij,...j->...", direction, np.array(self.covariance), direction)
        half: Array = t_quantile(0.975, self.freedom) * np.sqrt(np.maximum(variance, 0.0))
        return half


@dataclass(frozen=True)
class LawFit:
    """α* = coefficient · rank^exponent with 95 % intervals.

    Intervals are None where there are fewer than two seeds.

    Attributes:
        spreads: How sure seeds and regression are of (log₂ C, p); every interval is the wider of theirs.
        scatter_octaves: The optima's residual spread about the law.
        bend: Quadratic term of log₂ α* in log₂ r: 0 for a power law, above 0 where α* grows ever faster.
            None with fewer than five optima inside the grid or with censored ones.
        bend_low: Lower end of its 95 % interval.
        bend_high: Upper end.
    """

    exponent: float
    exponent_low: float | None
    exponent_high: float | None
    coefficient: float
    coefficient_low: float | None
    coefficient_high: float | None
    scatter_octaves: float
    bend: float | None = None
    bend_low: float | None = None
    bend_high: float | None = None
    spreads: tuple[Spread, ...] = ()

    @property
    def bends(self) -> bool:
        """Whether the optima leave the line by more than chance: no single exponent describes them."""
        return self.bend_low is not None and self.bend_high is not None and self.bend_low * self.bend_high > 0

    def predict(self, ranks: Sequence[float]) -> tuple[Array, Array | None, Array | None]:
        """The law at ``ranks`` with its 95 % band: (value, low, high); no band without an interval."""
        x = np.log2(np.asarray(ranks, dtype=np.float64))
        centre = math.log2(self.coefficient) + self.exponent * x
        if not self.spreads:
            return 2.0**centre, None, None
        half = _widest(self.spreads, np.stack([np.ones_like(x), x], axis=1))
        return 2.0**centre, 2.0 ** (centre - half), 2.0 ** (centre + half)


def fit_power_law(inside: Sequence[Optimum], censored: Sequence[Optimum]) -> LawFit:
    """Fit log₂ α* = log₂ C + p·log₂ r to at least two optima ``inside`` the grid and to ``censored`` ones.

    Without censored optima this is least squares. Edges (one-sided) and cliffs (between two cells) enter by
    the likelihood of a normal scatter about the line, whose width is estimated with it.

    The interval is the wider of two: a delete-one-seed jackknife of the whole way from losses to law (t with
    n_seeds - 1 degrees of freedom), which knows what seeds do, and the regression's own (t with n_ranks - 2),
    which knows how badly the optima keep to a line. On planted power laws the first alone covers at its
    nominal rate with 3 and with 5 seeds; the second takes over where the law itself fits badly.
    """
    x = np.log2([optimum.rank for optimum in inside])
    y = np.log2([optimum.value for optimum in inside])
    intercept, slope, scatter = _solve(x, y, censored)
    removed = [np.log2([o.per_seed_removed[seed] for o in inside]) for seed in _shared_seeds(inside)]
    spreads: tuple[Spread, ...] = ()
    if len(removed) > 1:
        line = np.stack([np.ones_like(x), x], axis=1)
        over_seeds = _jackknife([np.array(_solve(x, values, censored)[:2]) for values in removed])
        spreads = (over_seeds, *_regression(line, y - intercept - slope * x))
    bend: tuple[float | None, ...] = (None, None, None)
    if len(inside) >= MIN_RANKS_FOR_BEND and not censored:
        bend = _bend(x, y, removed)
    low_c, high_c = _interval(intercept, spreads, np.array([1.0, 0.0]))
    low_p, high_p = _interval(slope, spreads, np.array([0.0, 1.0]))
    return LawFit(
        exponent=slope,
        exponent_low=low_p,
        exponent_high=high_p,
        coefficient=2.0**intercept,
        coefficient_low=None if low_c is None else 2.0**low_c,
        coefficient_high=None if high_c is None else 2.0**high_c,
        scatter_octaves=scatter,
        bend=bend[0],
        bend_low=bend[1],
        bend_high=bend[2],
        spreads=spreads,
    )


def compare_exponents(inside: Sequence[Optimum], censored: Sequence[Optimum]) -> tuple[ModelScore, ...]:
    """AICc of p free and of fixed exponents; needs five optima inside the grid."""
    n = len(inside)
    if n < MIN_RANKS_FOR_AICC:
        return ()
    x = np.log2([optimum.rank for optimum in inside])
    y = np.log2([optimum.value for optimum in inside])
    ranges = _ranges(censored)
    scores = {}
    for name, slope in {"p free": None, **CANDIDATES}.items():
        intercept, p, scatter = _solve(x, y, censored, slope=slope)
        k = 3 if slope is None else 2
        likelihood = _log_likelihood(intercept, p, max(scatter, MIN_SCATTER), x, y, *ranges)
        total = n + len(censored)
        scores[name] = (p, 2 * k - 2 * likelihood + 2 * k * (k + 1) / (total - k - 1))
    best = min(aicc for _, aicc in scores.values())
    return tuple(ModelScore(name, p, aicc, aicc - best) for name, (p, aicc) in scores.items())


def _widest(spreads: Sequence[Spread], direction: Array) -> Array:
    half: Array = np.max([spread.half_width(direction) for spread in spreads], axis=0)
    return half


def _interval(value: float, spreads: Sequence[Spread], direction: Array) -> tuple[float | None, float | None]:
    if not spreads:
        return None, None
    half = float(_widest(spreads, direction))
    return value - half, value + half


def _jackknife(without: Sequence[Array]) -> Spread:
    """The spread over seeds of an estimate from its delete-one values (Efron & Tibshirani 1993, eq. 11.5)."""
    n = len(without)
    estimates = np.stack(list(without))
    centred = estimates - estimates.mean(axis=0)
    return Spread(_rows((n - 1) / n * centred.T @ centred), n - 1)


def _regression(design: Array, residuals: Array) -> tuple[Spread, ...]:
    """The spread of least squares by its residuals; none without degrees of freedom."""
    freedom = len(residuals) - design.shape[1]
    if freedom < 1:
        return ()
    variance = float(residuals @ residuals) / freedom
    return (Spread(_rows(variance * np.linalg.inv(design.T @ design)), freedom),)


def _bend(x: Array, y: Array, removed: Sequence[Array]) -> tuple[float | None, ...]:
    """The quadratic term and its interval, by the same two spreads as the law's."""
    centred = x - x.mean()
    design = np.stack([np.ones_like(x), centred, centred**2], axis=1)
    solve = np.linalg.pinv(design)
    theta = solve @ y
    spreads: tuple[Spread, ...] = ()
    if len(removed) > 1:
        over_seeds = _jackknife([solve @ values for values in removed])
        spreads = (over_seeds, *_regression(design, y - design @ theta))
    return float(theta[2]), *_interval(float(theta[2]), spreads, np.array([0.0, 0.0, 1.0]))


def _rows(matrix: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def _solve(
    x: Array, y: Array, censored: Sequence[Optimum], *, slope: float | None = None
) -> tuple[float, float, float]:
    """Intercept, slope and scatter (log₂ units) by maximum likelihood; ``slope`` may be given."""
    start = _least_squares(x, y, slope)
    if not censored:
        return start
    from scipy import optimize

    ranges = _ranges(censored)

    def unpack(theta: Array) -> tuple[float, float, float]:
        p = float(theta[2]) if slope is None else slope
        return float(theta[0]), p, MIN_SCATTER + math.exp(float(theta[1]))

    def loss(theta: Array) -> float:
        return -_log_likelihood(*unpack(theta), x, y, *ranges)

    theta = [start[0], math.log(max(start[2], 0.1)), *([start[1]] if slope is None else [])]
    found = optimize.minimize(loss, theta, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    return unpack(found.x)


def _ranges(censored: Sequence[Optimum]) -> tuple[Array, Array, Array]:
    """log₂ of each rank and of the range that its optimum must lie in."""
    low = np.array([-np.inf if o.bound_low is None else math.log2(o.bound_low) for o in censored])
    high = np.array([np.inf if o.bound_high is None else math.log2(o.bound_high) for o in censored])
    return np.log2([optimum.rank for optimum in censored]), low, high


def _least_squares(x: Array, y: Array, slope: float | None) -> tuple[float, float, float]:
    if slope is None:
        centred = x - x.mean()
        slope = float((centred * y).sum() / (centred**2).sum())
    intercept = float(y.mean() - slope * x.mean())
    scatter = math.sqrt(float(((y - intercept - slope * x) ** 2).mean()))
    return intercept, slope, scatter


def _log_likelihood(
    intercept: float, slope: float, scatter: float, x: Array, y: Array, xc: Array, low: Array, high: Array
) -> float:
    from scipy.special import ndtr

    z = (y - (intercept + slope * x)) / scatter
    seen = (-(z**2) / 2.0 - math.log(math.sqrt(2 * math.pi)) - np.log(scatter)).sum()
    centre = intercept + slope * xc
    upper, lower = (high - centre) / scatter, (low - centre) / scatter
    # Differences of tails on the side where they do not cancel.
    flip = lower > 0
    a, b = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    mass = ndtr(b) - ndtr(a)
    return float(seen + np.log(np.maximum(mass, 1e-300)).sum())


def _shared_seeds(inside: Sequence[Optimum]) -> list[int]:
    sets = [set(optimum.per_seed_removed) for optimum in inside]
    return sorted(set.intersection(*sets)) if sets else []
