"""A curve of costs over log₂ α (or log₂ lr), and joint draws of what it may look like."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Costs of one curve: positions ``x`` (n,) = log₂ of α, costs ``y`` (S, n), NaN where a run is missing.

    Every cell has a run. ``wall_low`` and ``wall_high`` are the nearest positions that diverged, or ∓∞.
    """

    x: Array
    y: Array
    wall_low: float = -math.inf
    wall_high: float = math.inf


@dataclass(frozen=True, eq=False)
class CurveDraws:
    """Joint draws of one curve.

    Attributes:
        where: log₂ position of the minimum: (D,).
        grid: Positions of ``rise``: (G,).
        rise: Cost above the minimum of the draw: (G, D).
        searched: Positions of ``log_likelihood``: (M,).
        log_likelihood: Of the minimum lying there, under the shape of each draw: (M, D).
        gap: Octaves between the two cells that the median minimum lies between, 0 beyond the cells.
    """

    where: Array
    grid: Array
    rise: Array
    searched: Array
    log_likelihood: Array
    gap: float = 0.0

    def steepness(self) -> float:
        """The rise in the octave above the minimum, in units of that in the octave below: the median."""
        middle = float(np.median(self.where))
        above, below = self.excess(middle + 1), self.excess(middle - 1)
        return float(np.median(np.maximum(above, 1e-300) / np.maximum(below, 1e-300)))

    def excess(self, x: float) -> Array:
        """Cost at log₂ position ``x`` above the curve's minimum: (D,)."""
        place = float(np.clip((x - self.grid[0]) / (self.grid[1] - self.grid[0]), 0, len(self.grid) - 1.001))
        below = int(place)
        between: Array = self.rise[below] + (place - below) * (self.rise[below + 1] - self.rise[below])
        return between

    def reaches(self, tolerance: Array, *, way: int) -> Array:
        """How far from its minimum each draw stays within ``tolerance`` of it, to one side: positions (D,).

        Args:
            tolerance: Above the minimum, in the unit of the costs, (D,).
            way: -1 towards smaller, 1 towards larger positions.
        """
        grid, rise, where = self.grid[::way], self.rise[::way], self.where
        outside = (way * (grid[:, None] - where) > 0) & (rise > tolerance)
        first = np.where(outside.any(0), outside.argmax(0), len(grid) - 1)
        draws = np.arange(len(where))
        after, above = grid[first], rise[first, draws]
        before, below = grid[first - 1], rise[first - 1, draws]
        near = way * (before - where) <= 0
        # Next to the minimum the rise is as good as quadratic, farther out straight between two positions.
        share = np.where(
            near,
            np.sqrt(np.clip(tolerance / np.maximum(above, 1e-300), 0, 1)),
            np.clip((tolerance - below) / np.maximum(above - below, 1e-30), 0, 1),
        )
        start = np.where(near, where, before)
        return np.where(outside.any(0), start + share * (after - start), grid[-1])
