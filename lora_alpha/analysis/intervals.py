"""Quantiles of t, and how two sets of losses that share seeds differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MARGIN = 0.02  # a relative difference of loss that does not matter


@dataclass(frozen=True)
class PairedDifference:
    """A mean relative difference with its interval, and whether it is within the margin."""

    mean: float
    low: float
    high: float
    within_margin: bool


def t_quantile(probability: float, freedom: int) -> float:
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


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], *, margin: float, tail: float = 0.025
) -> PairedDifference:
    """The mean over shared seeds of (first - second) / mean loss.

    Args:
        first: Loss by seed; at least two seeds in common with ``second``.
        second: Loss by seed.
        margin: ``within_margin`` is that the 90 % interval lies within ± this (two one-sided tests at 5 %).
        tail: Probability beyond each end of the interval; 0.025 gives 95 %.

    Source: Schuirmann 1987 for the two one-sided tests.

    >>> paired_difference({0: 1.25, 1: 1.25}, {0: 0.75, 1: 0.75}, margin=0.02)
    PairedDifference(mean=0.5, low=0.5, high=0.5, within_margin=False)
    """
    pairs = np.array([[first[seed], second[seed]] for seed in shared_seeds(first, second)])
    n = len(pairs)
    # Losses of exactly 0 (a reward fully earned) differ by 0 of whatever they are measured in.
    relative = (pairs[:, 0] - pairs[:, 1]) / (pairs.mean() or 1.0)
    mean, error = float(relative.mean()), float(relative.std(ddof=1) / math.sqrt(n))
    wide, narrow = t_quantile(1 - tail, n - 1) * error, t_quantile(0.95, n - 1) * error
    return PairedDifference(
        mean=mean,
        low=mean - wide,
        high=mean + wide,
        within_margin=-margin < mean - narrow and mean + narrow < margin,
    )
