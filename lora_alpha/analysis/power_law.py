"""The fit α* = C·r^p (or η* = C·r^p) through the optima of several ranks, as sure as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.curves import CurveDraws
from lora_alpha.analysis.optimum import ENDS, Located

CANDIDATES: dict[str, float] = {"p = 0": 0.0, "p = 1/2": 0.5, "p = 1": 1.0}
MIN_RANKS_FOR_AICC = 5
MIN_RANKS_FOR_BEND = 5
# How far optima may scatter about their law, in octaves; half of the prior lies at 0.
SCATTERS = np.array([0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0])
SCATTER_PRIOR = np.array([0.5, *[0.5 / 7] * 7])
COPIES = 5  # draws of the scatter for each draw of the optima
SMALLEST = 1e-4  # standard deviation of an optimum, octaves

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModelScore:
    """One candidate: its exponent (None where it bends), its AICc, and how much worse than the best's."""

    name: str
    exponent: float | None
    aicc: float
    delta: float


@dataclass(frozen=True)
class Trend:
    """log₂ of the optimum as a polynomial of log₂ r, and how sure it is.

    ``coefficients`` start with the constant; the 95 % band at a rank is ± ``widths`` standard deviations by
    ``covariance``.
    """

    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    widths: float

    def at(self, x: Array) -> tuple[Array, Array]:
        """Centre and half width of the band at log₂ ranks ``x``."""
        powers = x[:, None] ** np.arange(len(self.coefficients))
        variance = np.einsum("ni,ij,nj->n", powers, np.array(self.covariance), powers)
        centre: Array = powers @ np.array(self.coefficients)
        return centre, self.widths * np.sqrt(np.maximum(variance, 0.0))


@dataclass(frozen=True)
class LawFit:
    """α* = coefficient · rank^exponent with 95 % intervals.

    Attributes:
        exponent: p.
        exponent_low: Lower end of its interval.
        exponent_high: Upper end.
        coefficient: C.
        coefficient_low: Lower end of its interval.
        coefficient_high: Upper end.
        scatter_octaves: How far the optima lie from the law, root mean square.
        bend: Quadratic term of log₂ α* in log₂ r: 0 for a power law, above 0 where α* grows ever faster.
            None with fewer than five optima or with one at an edge or a cliff.
        bend_low: Lower end of its 95 % interval.
        bend_high: Upper end.
        line: The law as a line.
        bent: The law with its bend; None where there is no bend.
    """

    exponent: float
    exponent_low: float
    exponent_high: float
    coefficient: float
    coefficient_low: float
    coefficient_high: float
    scatter_octaves: float
    line: Trend
    bend: float | None = None
    bend_low: float | None = None
    bend_high: float | None = None
    bent: Trend | None = None

    @property
    def bends(self) -> bool:
        """Whether the optima leave the line by more than chance: no single exponent describes them."""
        return self.bend_low is not None and self.bend_high is not None and self.bend_low * self.bend_high > 0

    def predict(self, ranks: Sequence[float]) -> tuple[Array, Array, Array]:
        """The optimum at ``ranks`` with its 95 % band: (value, low, high), with the bend where it bends."""
        trend = self.bent if self.bends and self.bent is not None else self.line
        centre, half = trend.at(np.log2(np.asarray(ranks, dtype=np.float64)))
        return 2.0**centre, 2.0 ** (centre - half), 2.0 ** (centre + half)


def fit_power_law(located: Sequence[Located]) -> LawFit:
    """Fit log₂ α* = log₂ C + p·log₂ r to optima of which at least two lie inside the grid.

    Every joint draw of the optima gives a line by generalised least squares; the scatter of optima about the
    law is unknown and drawn from its posterior on a grid. An optimum beyond the grid's edge weighs the lines
    by how likely they make it.
    """
    inside, beyond = _split(located)
    lines, weights = _draws(inside, beyond, degree=1)
    line = _trend(lines, weights)
    low, high = (_quantile(lines, weights, end) for end in ENDS)
    x, values = _values(inside)
    residual = values - line.at(x)[0]
    bend: tuple[float | None, ...] = (None, None, None)
    bent = None
    if len(inside) >= MIN_RANKS_FOR_BEND and not any(item.optimum.censored for item in located):
        curves, weights = _draws(inside, beyond, degree=2)
        bent = _trend(curves, weights)
        bend = (bent.coefficients[2], *(float(_quantile(curves, weights, end)[2]) for end in ENDS))
    return LawFit(
        exponent=line.coefficients[1],
        exponent_low=float(low[1]),
        exponent_high=float(high[1]),
        coefficient=2.0 ** line.coefficients[0],
        coefficient_low=2.0 ** float(low[0]),
        coefficient_high=2.0 ** float(high[0]),
        scatter_octaves=math.sqrt(float((residual**2).mean())),
        line=line,
        bend=bend[0],
        bend_low=bend[1],
        bend_high=bend[2],
        bent=bent,
    )


def compare_exponents(located: Sequence[Located]) -> tuple[ModelScore, ...]:
    """AICc of p free, of fixed exponents and of a law that bends; from five optima inside the grid on."""
    inside, beyond = _split(located)
    n = len(inside)
    if n < MIN_RANKS_FOR_AICC or beyond:
        return ()
    x, mean, covariance = _moments(inside)
    scores: dict[str, tuple[float | None, float]] = {}
    for name, slope in {"p free": None, **CANDIDATES, "bend": None}.items():
        degree = 0 if slope is not None else 2 if name == "bend" else 1
        num_parameters = degree + 2
        if n - num_parameters - 1 <= 0:
            continue
        left = mean - (slope or 0.0) * x
        fits = [_gls(x, left, covariance, scatter, degree) for scatter in SCATTERS]
        best = max(fits, key=lambda fit: fit.log_likelihood)
        exponent = slope if slope is not None else float(best.theta[1]) if degree == 1 else None
        correction = 2 * num_parameters * (num_parameters + 1) / (n - num_parameters - 1)
        scores[name] = (exponent, 2 * num_parameters - 2 * best.log_likelihood + correction)
    least = min(aicc for _, aicc in scores.values())
    return tuple(ModelScore(name, p, aicc, aicc - least) for name, (p, aicc) in scores.items())


@dataclass(frozen=True, eq=False)
class _Gls:
    """Generalised least squares of optima on powers of log₂ r, for one scatter."""

    hat: Array  # theta = hat @ y
    theta: Array
    log_likelihood: float
    log_marginal: float  # theta integrated over


def _split(located: Sequence[Located]) -> tuple[list[Located], list[Located]]:
    """Optima inside the grid, and those of which only a range or one side is known."""
    inside = [item for item in located if item.inside]
    return inside, [item for item in located if not item.inside]


def _values(inside: Sequence[Located]) -> tuple[Array, Array]:
    x = np.log2([item.optimum.rank for item in inside])
    return x, np.log2([item.optimum.value for item in inside])


def _where(inside: Sequence[Located]) -> Array:
    """Draws of the optima: (R, D)."""
    return np.stack([item.draws.where for item in inside if item.draws is not None])


def _moments(inside: Sequence[Located]) -> tuple[Array, Array, Array]:
    """log₂ ranks, and mean and covariance of the optima."""
    where = _where(inside)
    x, _ = _values(inside)
    return x, where.mean(1), np.cov(where) + SMALLEST**2 * np.eye(len(x))


def _gls(x: Array, mean: Array, covariance: Array, scatter: float, degree: int) -> _Gls:
    design = x[:, None] ** np.arange(degree + 1)
    total = covariance + scatter**2 * np.eye(len(x))
    weighted = np.linalg.solve(total, design).T
    information = weighted @ design
    hat = np.linalg.solve(information, weighted)
    theta = hat @ mean
    residual = mean - design @ theta
    log = -0.5 * float(residual @ np.linalg.solve(total, residual)) - 0.5 * np.linalg.slogdet(total)[1]
    return _Gls(hat, theta, float(log), float(log - 0.5 * np.linalg.slogdet(information)[1]))


def _draws(inside: Sequence[Located], beyond: Sequence[Located], *, degree: int) -> tuple[Array, Array]:
    """Draws of the law's coefficients (degree + 1, N) and their weights (N,)."""
    rng = np.random.default_rng(degree)
    where = np.repeat(_where(inside), COPIES, axis=1)
    x, mean, covariance = _moments(inside)
    fits = [_gls(x, mean, covariance, scatter, degree) for scatter in SCATTERS]
    log = np.array([fit.log_marginal for fit in fits]) + np.log(SCATTER_PRIOR)
    picked = rng.choice(len(SCATTERS), size=where.shape[1], p=np.exp(log - np.logaddexp.reduce(log)))
    scattered = where + SCATTERS[picked] * rng.standard_normal(where.shape)
    theta = np.einsum("nij,jn->in", np.stack([fit.hat for fit in fits])[picked], scattered)
    weights = np.ones(theta.shape[1])
    for item in beyond:
        predicted = (math.log2(item.optimum.rank) ** np.arange(degree + 1)) @ theta
        weights *= _likelihood(item, predicted, SCATTERS[picked])
    if weights.sum() <= 0 or not np.isfinite(weights).all():
        weights = np.ones_like(weights)
    return theta, weights / weights.sum()


def _likelihood(item: Located, predicted: Array, scatter: Array) -> Array:
    """Of an optimum beyond the grid under the law's prediction for it: (N,)."""
    if item.draws is None:
        return _within_bounds(item, predicted, scatter)
    return _by_position(item.draws, predicted, scatter)


def _by_position(draws: CurveDraws, predicted: Array, scatter: Array) -> Array:
    log = np.repeat(draws.log_likelihood, COPIES, axis=1)  # (M, N)
    step = draws.searched[1] - draws.searched[0]
    away = (draws.searched[:, None] - predicted) / np.hypot(scatter, step)
    # Beyond the last position the curve says no more than there.
    far = predicted - np.clip(predicted, draws.searched[0], draws.searched[-1])
    near = np.where(np.abs(far) > 0, np.abs(away) - np.abs(far) / np.hypot(scatter, step), away)
    total: Array = (np.exp(log - log.max(0)) * np.exp(-0.5 * near**2)).sum(0) / np.hypot(scatter, step)
    return total


def _within_bounds(item: Located, predicted: Array, scatter: Array) -> Array:
    from scipy.special import ndtr

    optimum, width = item.optimum, np.maximum(scatter, 0.05)
    low = -np.inf if optimum.bound_low is None else math.log2(optimum.bound_low)
    high = np.inf if optimum.bound_high is None else math.log2(optimum.bound_high)
    mass: Array = ndtr((high - predicted) / width) - ndtr((low - predicted) / width)
    return np.maximum(mass, 1e-12)


def _quantile(draws: Array, weights: Array, share: float) -> Array:
    """The weighted quantile of each row of ``draws`` (K, N): (K,)."""
    order = np.argsort(draws, axis=1)
    reached = np.cumsum(weights[order], axis=1)
    place = np.minimum((reached < share).sum(1), draws.shape[1] - 1)
    return np.take_along_axis(draws, np.take_along_axis(order, place[:, None], 1), 1)[:, 0]


def _trend(draws: Array, weights: Array) -> Trend:
    centred = draws - (draws @ weights)[:, None]
    covariance = (weights * centred) @ centred.T
    low, middle, high = (_quantile(draws, weights, share) for share in (ENDS[0], 0.5, ENDS[1]))
    deviation = math.sqrt(max(float(covariance[-1, -1]), 1e-24))
    return Trend(
        coefficients=tuple(middle.tolist()),
        covariance=tuple(tuple(row) for row in covariance.tolist()),
        widths=float(high[-1] - low[-1]) / 2 / deviation,
    )
