"""Which of two minima is lower, seed by seed; what α against η and schedules of α have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lora_alpha.analysis.cells import MIN_SEEDS
from lora_alpha.analysis.intervals import Difference, paired_by_seed, paired_difference
from lora_alpha.analysis.route import Minimum, matched
from lora_alpha.analysis.yardstick import Yardstick

Outcome = Literal["same", "lower", "higher", "open"]
# What keeps a comparison open: too few seeds; an edge or a cliff at a minimum; both minima being one and the
# same cell; grids too coarse to match; an interval that is too wide.
Limit = Literal["seeds", "same_cell", "low_edge", "high_edge", "cliff", "spacing", "width"]

SPACING = 1.05  # octaves: coarser grids decide only where the positions of both match
EXCESS_FREEDOM = 30  # degrees of freedom of the correction's error, as of the cells that it rests on
ONE_SIGMA = 0.8413  # the share of a normal distribution below one standard deviation


@dataclass(frozen=True, eq=False)
class Compared:
    """Two minima.

    Attributes:
        first: One.
        second: The other.
        by_seed: Seed → cost around the first minimum - cost around the second.
        alike: The same of the best cells at equal positions; None where too few positions are.
    """

    first: Minimum
    second: Minimum
    by_seed: dict[int, float]
    alike: dict[int, float] | None

    @property
    def correction(self) -> tuple[float, float]:
        """How much farther the first's cells lie above their minimum than the second's do, and its error."""
        draws = self.first.excess - self.second.excess
        low, middle, high = np.quantile(draws, [1 - ONE_SIGMA, 0.5, ONE_SIGMA])
        return float(middle), float(high - low) / 2

    def difference(self, others: Sequence[Compared] = ()) -> Difference | None:
        """First minimum - second, its variance steadied by ``others``; None with fewer than two seeds.

        The cells around the minima are compared seed by seed; what they lie above the minima by the surface
        is taken off. Both errors are in it, and what a diverged neighbour leaves open.
        """
        if len(self.by_seed) < 2:
            return None
        rest = [list(other.by_seed.values()) for other in others]
        paired = paired_difference(list(self.by_seed.values()), rest)
        middle, error = self.correction
        total = math.hypot(paired.error, error)
        # Welch and Satterthwaite: degrees of freedom of a sum of two variances.
        shares = paired.error**4 / paired.freedom + error**4 / EXCESS_FREEDOM
        freedom = total**4 / shares if shares else paired.freedom
        return Difference(paired.mean - middle, total, freedom, self.first.fall, self.second.fall)

    def judge(
        self, others: Sequence[Compared], *, tolerance: float, tail: float
    ) -> tuple[Outcome, tuple[Limit, ...]]:
        """What the difference says, and where it is open, why.

        Args:
            others: Comparisons of the same kind.
            tolerance: A difference that does not matter.
            tail: Probability beyond each end of the interval that must be clear of 0.
        """
        limits = self._limits()
        difference = self.difference(others)
        if limits or difference is None:
            return "open", limits
        outcome = judge(difference, tolerance=tolerance, tail=tail)
        if outcome in {"lower", "higher"} and not self._confirmed(others, difference, tolerance, tail):
            return "open", ("spacing",)
        if outcome == "open":
            return "open", ("cliff",) if difference.fall_low or difference.fall_high else ("width",)
        return outcome, ()

    def _limits(self) -> tuple[Limit, ...]:
        limits: list[Limit] = ["seeds"] if len(self.by_seed) < MIN_SEEDS else []
        if self.first.cell is self.second.cell:
            limits.append("same_cell")
        ends = [self.first.end, self.second.end]
        limits += [end for end in ("low_edge", "high_edge") if end in ends]
        return tuple(limits)

    def _confirmed(
        self, others: Sequence[Compared], difference: Difference, tolerance: float, tail: float
    ) -> bool:
        """Whether cells at equal positions say the same as the minima.

        Without such cells both grids must be fine, and the minima's interval clear of the tolerance.
        """
        if self.alike is None:
            low, high = difference.interval(tail)
            beyond = high < -tolerance or low > tolerance
            return beyond and max(self.first.gap, self.second.gap) <= SPACING
        if len(self.alike) < 2:
            return False
        rest = [list(other.alike.values()) for other in others if other.alike]
        sign = paired_difference(list(self.alike.values()), rest).sign(tail=tail)
        return sign == math.copysign(1, difference.mean)


def compare(first: Minimum, second: Minimum) -> Compared:
    """Both minima seed by seed."""
    alike = matched(first.route, second.route)
    return Compared(
        first,
        second,
        paired_by_seed(first.by_seed, second.by_seed),
        None if alike is None else paired_by_seed(*alike),
    )


def judge(difference: Difference, *, tolerance: float, tail: float) -> Outcome:
    """``same`` within the tolerance; ``lower`` or ``higher`` beyond it and clear of 0; else ``open``.

    >>> judge(Difference(-1.0, 0.1, 30), tolerance=0.5, tail=0.01)
    'lower'
    >>> judge(Difference(-0.4, 0.1, 30), tolerance=0.5, tail=0.01)
    'open'
    """
    # Two routes to a loss of exactly 0 have no level that a margin could be a share of.
    if difference.within(tolerance) or difference.mean == difference.error == tolerance == 0:
        return "same"
    if abs(difference.mean) <= tolerance:
        return "open"
    outcomes: dict[int, Outcome] = {-1: "lower", 0: "open", 1: "higher"}
    return outcomes[difference.sign(tail=tail)]


def shown(
    difference: Difference | None, measure: Yardstick, *, level: float, tail: float = 0.025
) -> dict[str, Any]:
    """A difference as records hold it: a share and in the metric's unit, each with its interval.

    An end is None where nothing bounds it, a share where there is nothing to take a share of.
    """
    ends = (None, None, None) if difference is None else (difference.mean, *difference.interval(tail))
    gaps = [end if end is not None and math.isfinite(end) else None for end in ends]
    shares = [None if gap is None else measure.share(gap, level=level) for gap in gaps]
    names = ("difference", "low", "high", "gap", "gap_low", "gap_high")
    return dict(zip(names, [*shares, *gaps], strict=True))
