"""Counts over the replicates of a world."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.coverage.readings import Reading, covered, given

QUANTITIES = {"p": "p", "C": "C", "alpha": "α*", "basin": "basin"}


@dataclass(frozen=True)
class Count:
    """One quantity in one world; octaves, but for p.

    Attributes:
        asked: Replicates in which it has a true value that the sweep could measure.
        given: Those with an interval.
        covered: Those whose interval holds the truth.
        width: Mean width of the intervals.
        rmse: Root mean square error of the estimates; of α* over all ranks.
        rmse_error: Standard error of that.
    """

    asked: int
    given: int
    covered: int
    width: float | None
    rmse: float | None
    rmse_error: float | None

    @property
    def coverage(self) -> float | None:
        """Share of the intervals that hold the truth."""
        return self.covered / self.given if self.given else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the coverage."""
        return clopper_pearson(self.covered, self.given)


def count(readings: Sequence[Reading], quantity: str) -> Count | None:
    """Counts of a key of ``QUANTITIES``; None for worlds that have none such."""
    fours = [reading[quantity] for reading in readings if reading.get(quantity) is not None]
    if not fours:
        return None
    widths = [four[3] - four[2] for four in fours if given(four)]
    if quantity == "alpha":
        sums = [reading["optima"] for reading in readings if "optima" in reading]
        squares = [total / number for number, _, _, total in sums]
    else:
        squares = [(four[1] - four[0]) ** 2 for four in fours if four[1] is not None]
    rmse = math.sqrt(np.mean(squares)) if squares else None
    error = None
    if rmse and len(squares) > 1:
        error = float(np.std(squares, ddof=1)) / math.sqrt(len(squares)) / (2.0 * rmse)
    return Count(
        asked=len(fours),
        given=len(widths),
        covered=sum(covered(four) for four in fours),
        width=float(np.mean(widths)) if widths else None,
        rmse=rmse,
        rmse_error=error,
    )


def verdicts(readings: Sequence[Reading], key: str) -> Counter[str]:
    """How often each verdict was given: ``verdict`` on one rank, ``overall`` on all."""
    return Counter(reading[key] for reading in readings if key in reading)


def clopper_pearson(hits: int, number: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial share; 0 to 1 for none.

    Source: Clopper & Pearson 1934, by quantiles of the beta distribution.

    >>> tuple(round(end, 4) for end in clopper_pearson(0, 10))
    (0.0, 0.3085)
    """
    from scipy.special import betaincinv

    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(hits, number - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, number - hits, 1.0 - tail)) if hits < number else 1.0
    return low, high
