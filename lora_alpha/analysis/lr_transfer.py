"""How the best α moves with the learning rate: log₂ α* = a_r + κ·log₂ η, with κ common to all ranks.

κ is estimated where two learning rates share a rank that has an optimum at both. Elsewhere α·η = const
(κ = −1) is assumed, and may be wrong by what it was wrong on our own workloads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.law import Law
from lora_alpha.analysis.optimum import Optimum

Array = NDArray[np.float64]

KAPPA = -1.0  # α·η constant
# κ was −0.94, −1.16, −1.51, −1.02, −1.00, −0.96 on mlp, digits, mod-rl, charlm, clip, carry over 16-fold η
# (docs/EXPERIMENTS.md): a seventh workload's is expected in −1.70 to −0.50 (95 %, t with 5 degrees of
# freedom), all of which −1 ± 0.7 holds.
KAPPA_HALF_WIDTH = 0.7
# Standard deviation of α* about its line over η, in octaves: 0.12 to 0.19 there, and uncertain.
SCATTER = 0.25
NORMAL_HALF = 1.959964  # half a 95 % interval, in standard deviations
LEAST_ERROR = 0.02  # octaves: no optimum is known better
SCATTERS = np.linspace(0.0, 4 * SCATTER, 41)


@dataclass(frozen=True, eq=False)
class LRTransfer:
    """What is known of κ: a mixture of normals, one for each scatter τ about the line.

    Attributes:
        num_lrs: Learning rates that it was estimated from; 0 where it is assumed.
        scatters: τ of each part, octaves: (T,).
        weights: How likely each is: (T,).
        means: κ under each: (T,).
        variances: Its variance: (T,).
    """

    num_lrs: int
    scatters: Array
    weights: Array
    means: Array
    variances: Array

    @property
    def estimated(self) -> bool:
        """Whether κ was estimated from this sweep, not assumed."""
        return self.num_lrs > 0

    @property
    def kappa(self) -> float:
        """The exponent of α* in η."""
        return float(self.weights @ self.means)

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self._quantiles(self.means, self.variances)

    def shift(self, octaves: float) -> tuple[float, float, float]:
        """How far α* moves, in octaves, when η moves by ``octaves``: value, and 95 % interval.

        Uncertainty grows with the distance; both ends' scatter about the line counts in full from one octave
        on, since a neighbouring η has nearly the same optimum.
        """
        scatter = 2 * self.scatters**2 * min(1.0, abs(octaves))
        return self.kappa * octaves, *self._quantiles(
            self.means * octaves, self.variances * octaves**2 + scatter
        )

    def _quantiles(self, means: Array, variances: Array) -> tuple[float, float]:
        from scipy.special import ndtr

        sds = np.sqrt(np.maximum(variances, 1e-18))
        x = np.linspace((means - 6 * sds).min(), (means + 6 * sds).max(), 801)
        reached = self.weights @ ndtr((x - means[:, None]) / sds[:, None])
        low, high = np.interp([0.025, 0.975], reached, x)
        return float(low), float(high)


def lr_transfer(laws: Sequence[Law]) -> LRTransfer:
    """κ from the optima of ``laws``: one method and lr ratio at several learning rates.

    Every rank has a level of its own, κ is one. An optimum's error is its own interval's, plus a scatter τ
    about the line that is estimated with κ; before any data κ = −1 ± 0.7 and τ is half-normal with the size
    that our workloads show. With four optima or more the data decide.

    Source: the random-effects model of meta-analysis, integrated over τ on a grid (Higgins, Thompson and
    Spiegelhalter 2009, J. R. Stat. Soc. A 172; Röver 2020, J. Stat. Softw. 93).
    """
    groups = [group for group in _groups(laws) if len({x for x, _, _ in group}) > 1]
    prior = (KAPPA_HALF_WIDTH / NORMAL_HALF) ** 2
    if not groups:
        one = np.ones(1)
        return LRTransfer(0, 0 * one, one, KAPPA * one, prior * one)
    parts = [_given_scatter(groups, float(scatter), prior) for scatter in SCATTERS]
    log, means, variances = (np.array(column) for column in zip(*parts, strict=True))
    log = log - 0.5 * (SCATTERS / SCATTER) ** 2
    weights = np.exp(log - log.max())
    num_lrs = len({x for group in groups for x, _, _ in group})
    return LRTransfer(num_lrs, SCATTERS, weights / weights.sum(), means, variances)


Point = tuple[float, float, float]  # log₂ η, log₂ α*, its standard error


def _groups(laws: Sequence[Law]) -> list[list[Point]]:
    """Points that share a level: a rank's optima; where no rank has two, the laws at their middle rank."""
    by_rank: dict[int, list[Point]] = {}
    for law in laws:
        for optimum in law.optima:
            if optimum.low is not None:
                by_rank.setdefault(optimum.rank, []).append(_point(law.fixed, optimum))
    shared = [group for group in by_rank.values() if len(group) > 1]
    fitted = [law for law in laws if law.fit is not None]
    if shared or len(fitted) < 2:
        return shared
    ranks = [optimum.rank for law in fitted for optimum in law.optima]
    return [_law_points(fitted, math.exp(sum(map(math.log, ranks)) / len(ranks)))]


def _law_points(laws: Iterable[Law], rank: float) -> list[Point]:
    points = []
    for law in laws:
        assert law.fit is not None
        value, low, high = (float(band[0]) for band in law.fit.predict([rank]))
        points.append((math.log2(law.fixed), math.log2(value), _error(low, high)))
    return points


def _point(lr: float, optimum: Optimum) -> Point:
    assert optimum.low is not None
    assert optimum.high is not None
    return math.log2(lr), math.log2(optimum.value), _error(optimum.low, optimum.high)


def _error(low: float, high: float) -> float:
    return max(math.log2(high / low) / (2 * NORMAL_HALF), LEAST_ERROR)


def _given_scatter(
    groups: Sequence[Sequence[Point]], scatter: float, prior: float
) -> tuple[float, float, float]:
    """Log-likelihood of τ with the levels and κ integrated out; mean and variance of κ given τ."""
    log, xx, xy, yy = 0.0, 0.0, 0.0, 0.0
    for group in groups:
        x, y, error = np.array(group).T
        weight = 1 / (error**2 + scatter**2)
        total = weight.sum()
        x, y = x - weight @ x / total, y - weight @ y / total
        log += 0.5 * (float(np.log(weight).sum()) - math.log(total))
        xx, xy, yy = xx + float(weight @ x**2), xy + float(weight @ (x * y)), yy + float(weight @ y**2)
    precision = xx + 1 / prior
    mean = (xy + KAPPA / prior) / precision
    log -= 0.5 * (math.log(precision) + yy + KAPPA**2 / prior - mean**2 * precision)
    return log, mean, 1 / precision
