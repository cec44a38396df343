"""Quantiles of t, and how two sets of losses that share seeds differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 0.02  # a relative difference of loss that does not matter
WINNER_TAIL = 0.01  # beyond each end of the interval that must be clear of 0 before a winner is named
BORROWED = 4  # degrees of freedom of the scatter of other comparisons that may count for one: they may differ


@dataclass(frozen=True)
class Difference:
    """A difference with its standard error; ``freedom`` is the error's degrees of freedom.

    ``fall_low`` and ``fall_high`` widen every interval by what no scatter says: how much lower or higher the
    truth may lie besides.
    """

    mean: float
    error: float
    freedom: float
    fall_low: float = 0.0
    fall_high: float = 0.0

    def interval(self, tail: float = 0.025) -> tuple[float, float]:
        """Its ends; ``tail`` is the probability beyond each of them.

        >>> low, high = Difference(1.0, 0.5, 2).interval()
        >>> round(low, 3), round(high, 3)
        (-1.151, 3.151)
        """
        half = t_quantile(1 - tail, self.freedom) * self.error
        return self.mean - half - self.fall_low, self.mean + half + self.fall_high

    def within(self, tolerance: float) -> bool:
        """Two one-sided tests at 5 %: whether the 90 % interval lies within ± ``tolerance``.

        Source: Schuirmann 1987.
        """
        low, high = self.interval(0.05)
        return -tolerance < low and high < tolerance

    def sign(self, *, tail: float) -> int:
        """-1 or 1 where the interval is clear of 0, else 0."""
        low, high = self.interval(tail)
        return -1 if high < 0 else int(low > 0)


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t with ``freedom`` degrees of freedom.

    >>> round(t_quantile(0.975, 2), 3)
    4.303
    """
    # scipy is loaded when something is fitted: a client that only reads answers starts without it.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def shared_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> list[int]:
    """The seeds that both have, in order."""
    return sorted(first.keys() & second.keys())


def paired_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """The first less the second at each seed that both have.

    >>> paired_by_seed({0: 3.0, 1: 5.0}, {1: 4.0, 2: 0.0})
    {1: 1.0}
    """
    return {seed: first[seed] - second[seed] for seed in shared_seeds(first, second)}


def paired_difference(own: Sequence[float], others: Sequence[Sequence[float]] = ()) -> Difference:
    """The mean of paired differences, one a seed; its variance steadied by those of other comparisons.

    The variances of ``others`` count for at most ``BORROWED`` degrees of freedom: three seeds say nearly
    nothing about their own scatter, but other ranks may scatter differently.

    Args:
        own: At least two differences.
        others: Differences of comparisons of the same kind; those of fewer than two seeds do not count.

    Source: Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3(1):3, eq. 3 (its prior's weight is fixed here).

    >>> paired_difference([0.25, 0.75])
    Difference(mean=0.5, error=0.25, freedom=1, fall_low=0.0, fall_high=0.0)
    """
    n, mean = len(own), float(np.mean(own))
    usable = [other for other in others if len(other) > 1]
    known = sum(len(other) - 1 for other in usable)
    borrowed = min(BORROWED, known)
    pooled = sum(_squares(other) for other in usable) / known if known else 0.0
    freedom = n - 1 + borrowed
    variance = (_squares(own) + borrowed * pooled) / freedom
    return Difference(mean, math.sqrt(variance / n), freedom)


def seeds_for(
    half_width: float, difference: Difference, *, num_seeds: int, tail: float, most: int
) -> int | None:
    """How many seeds bring half the interval below ``half_width``, by t and error ∝ 1/√seeds.

    None where ``most`` are too few.

    >>> seeds_for(0.25, Difference(0.0, 0.25, 2), num_seeds=3, tail=0.025, most=20)
    15
    """
    for more in range(num_seeds + 1, most + 1):
        error = difference.error * math.sqrt(num_seeds / more)
        freedom = difference.freedom * (more - 1) / max(num_seeds - 1, 1)
        if t_quantile(1 - tail, freedom) * error < half_width:
            return more
    return None


def _squares(values: Sequence[float]) -> float:
    return float(((np.asarray(values) - np.mean(values)) ** 2).sum())
