"""Which runs would decide an open comparison of two routes: exactly these, and no others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.optimum import Target, value_of
from lora_alpha.analysis.route import ALIKE, REACH, Minimum

BEYOND = 1.5  # octaves by which a grid is extended over its edge
FARTHEST = 4.0  # octaves at most, where the other route's minimum lies farther up
LOWER = 2  # octaves by which a base point that is itself the best is lowered
FILL_WITHIN = 1.5  # octaves about a minimum in which the other route's positions are run too
FINEST = 0.25  # octaves: a gap next to a divergence is not halved further
MOST_SEEDS = 20  # beyond these a comparison is called hopeless at its margin


@dataclass(frozen=True)
class DecidingCell:
    """A configuration and the seeds of it to run."""

    method: str
    rank: int
    alpha: float
    lr: float
    lr_ratio: float
    seeds: tuple[int, ...]

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """One explicit cell a seed, as ``POST /sweeps/{id}/extend`` takes them.

        >>> DecidingCell("lora", 4, 64.0, 1e-3, 1.0, (0,)).configurations
        [{'method': 'lora', 'rank': 4, 'alpha': 64.0, 'lr': 0.001, 'lr_ratio': 1.0, 'seed': 0}]
        """
        fields = {name: value for name, value in vars(self).items() if name != "seeds"}
        return [{**fields, "seed": seed} for seed in self.seeds]


@dataclass(frozen=True)
class Plan:
    """What an open comparison lacks: positions (α, η), cells to repeat, and how many seeds each."""

    alpha: Minimum
    lr: Minimum
    base_alpha: float
    base_lr: float

    def beyond_edges(self) -> set[tuple[float, float]]:
        """Positions that extend a route over the edge its minimum lies at, or halve the gap to a cliff."""
        wanted: set[tuple[float, float]] = set()
        for mine, other in ((self.alpha, self.lr), (self.lr, self.alpha)):
            axis = mine.route.axis
            if mine.end == "high_edge":
                wanted |= {self._point(axis, x) for x in _above(mine, other)}
            elif mine.end == "cliff":
                wanted |= {self._point(axis, x) for x in _between(mine)}
        low = [found for found in (self.alpha, self.lr) if found.end == "low_edge"]
        return wanted | (self._lowered(low[0]) if low else set())

    def matching(self) -> set[tuple[float, float]]:
        """Positions of either route around its minimum that the other route lacks."""
        wanted = set()
        for mine, other in ((self.alpha, self.lr), (self.lr, self.alpha)):
            have = mine.route.x
            for x in map(float, other.route.x):
                near = min(abs(x - mine.where), abs(x - other.where)) <= FILL_WITHIN
                if near and min(abs(have - x)) > ALIKE:
                    wanted.add(self._point(mine.route.axis, x))
        return wanted

    def halved(self) -> set[tuple[float, float]]:
        """Positions halfway between each best cell and its neighbours farther than half an octave."""
        wanted = set()
        for found in (self.alpha, self.lr):
            x = found.route.x
            for side in (found.best - 1, found.best + 1):
                if 0 <= side < len(x) and abs(x[side] - x[found.best]) > 0.5 + ALIKE:
                    wanted.add(self._point(found.route.axis, float(x[side] + x[found.best]) / 2))
        return wanted

    def around(self) -> set[tuple[float, float]]:
        """Measured positions that speak for either minimum."""
        return {
            self._point(found.route.axis, float(found.route.x[place]))
            for found in (self.alpha, self.lr)
            for place in found.route.measured
            if place == found.best or abs(found.route.x[place] - found.where) < REACH
        }

    def _lowered(self, found: Minimum) -> set[tuple[float, float]]:
        """A smaller base point on one axis, the way down to it, and the other route from there."""
        axis = found.route.axis
        wanted = {self._point(axis, -float(step)) for step in range(1, LOWER + 1)}
        other = self.lr if axis == "alpha" else self.alpha
        shrunk = 2.0**-LOWER
        for x in map(float, other.route.x):
            if x <= LOWER + BEYOND:
                alpha, lr = self._point(other.route.axis, x)
                wanted.add((_tidy(alpha * shrunk), lr) if axis == "alpha" else (alpha, _tidy(lr * shrunk)))
        return wanted

    def _point(self, axis: Target, x: float) -> tuple[float, float]:
        if axis == "alpha":
            return _tidy(self.base_alpha * 2.0**x), self.base_lr
        return self.base_alpha, _tidy(self.base_lr * 2.0**x)


def to_run(
    points: Iterable[tuple[float, float]], cells: Sequence[Cell], *, seeds: Iterable[int], num_seeds: int
) -> list[DecidingCell]:
    """The runs that ``points`` (α, η) lack to have ``num_seeds`` seeds each, the same ones everywhere.

    Args:
        points: Positions.
        cells: What has been run of one method, rank and lr ratio: at least one cell.
        seeds: Those in use; every position gets all of them.
        num_seeds: Where these are fewer, the smallest others are added.
    """
    first = cells[0]
    assert first.rank is not None
    used = set(seeds)
    fresh = [seed for seed in range(num_seeds + len(used)) if seed not in used]
    all_seeds = sorted([*used, *fresh[: max(num_seeds - len(used), 0)]])
    wanted = []
    for alpha, lr in sorted(points):
        match = next((c for c in cells if _same(value_of(c, "alpha"), alpha) and _same(c.lr, lr)), None)
        missing = tuple(seed for seed in all_seeds if match is None or seed not in match.losses)
        if missing and not (match is not None and match.tried and not match.measured):
            here = (alpha, lr) if match is None else (value_of(match, "alpha"), match.lr)
            wanted.append(DecidingCell(first.method, first.rank, *here, first.lr_ratio, missing))
    return wanted


def _above(mine: Minimum, other: Minimum) -> list[float]:
    """Positions beyond the upper end: 1½ octaves, or an octave beyond the other route's minimum."""
    x = mine.route.x
    last = float(x[-1])
    step = min(1.0, float(x[-1] - x[-2])) if len(x) > 1 else 1.0
    until = last + BEYOND
    if not other.end:
        until = min(max(until, other.where + 1), last + FARTHEST)
    return [last + step * k for k in range(1, math.ceil((until - last) / step - 1e-9) + 1)]


def _between(mine: Minimum) -> list[float]:
    """Halfway to each diverged neighbour of the best cell."""
    x, cells = mine.route.x, mine.route.cells
    sides = [
        side for side in (mine.best - 1, mine.best + 1) if 0 <= side < len(x) and cells[side].num_diverged
    ]
    return [
        float(x[side] + x[mine.best]) / 2 for side in sides if abs(float(x[side] - x[mine.best])) > FINEST
    ]


def _same(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-5)


def _tidy(value: float) -> float:
    return float(f"{value:.6g}")
