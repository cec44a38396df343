"""How much worse than the best an α is: draws of each curve's excess over its own minimum.

``Excess`` is what rules and recommendations ask; ``regret_curve`` makes one of the cells of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.cells import Cell

Array = NDArray[np.float64]

NUM_DRAWS = 400
FINE = 1 / 16  # octaves between the places at which a drawn curve's minimum is looked for


class Excess(Protocol):
    """A curve of which it is known, draw by draw, how far it lies above its minimum."""

    def excess(self, x: float) -> Array:
        """Cost at log₂ α = ``x`` minus the cost at the curve's minimum, in the metric's unit: (D,)."""


@dataclass(frozen=True, eq=False)
class SmoothedCells:
    """Monotone cubic curves through draws of the cells' means.

    Attributes:
        x: log₂ α of the cells: (C,).
        draws: Their means: (D, C).
        lowest: Each curve's minimum: (D,).
    """

    x: Array
    draws: Array
    lowest: Array

    def excess(self, x: float) -> Array:
        """See ``Excess``; ``x`` lies within the cells."""
        return np.maximum(_through(self.x, self.draws, np.array([x]))[:, 0] - self.lowest, 0.0)


def regret_curve(cells: Sequence[Cell]) -> Excess | None:
    """The excess of one curve of cells over α; None with fewer than three measured.

    The means are drawn with the runs' residual variance after what a cell and a seed have in common; without
    two seeds there is one draw.
    """
    measured = sorted((c for c in cells if c.measured), key=lambda cell: cell.alpha or 0.0)
    if len(measured) < 3:
        return None
    x = np.log2([cell.alpha or math.nan for cell in measured])
    mean = np.array([np.mean(list(cell.costs.values())) for cell in measured])
    variance = _residual_variance(measured)
    draws = mean[None, :]
    if variance is not None:
        error = np.sqrt(variance / np.array([cell.n for cell in measured]))
        draws = mean + error * np.random.default_rng(0).standard_normal((NUM_DRAWS, len(mean)))
    fine = np.union1d(x, np.arange(x[0], x[-1], FINE))
    return SmoothedCells(x, draws, _through(x, draws, fine).min(axis=1))


def _residual_variance(cells: Sequence[Cell]) -> float | None:
    """Variance of a run about its cell and its seed, both fitted; None without degrees of freedom."""
    seeds = sorted({seed for cell in cells for seed in cell.costs})
    table = np.array([[cell.costs.get(seed, np.nan) for cell in cells] for seed in seeds])
    known = np.isfinite(table)
    freedom = int(known.sum()) - len(seeds) - len(cells) + 1
    if freedom < 1:
        return None
    rows, columns = np.nonzero(known)
    design = np.zeros((len(rows), len(seeds) + len(cells)))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), len(seeds) + columns] = 1
    y = table[rows, columns]
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(residual @ residual) / freedom


def _through(x: Array, draws: Array, at: Array) -> Array:
    from scipy.interpolate import PchipInterpolator

    values: Array = PchipInterpolator(x, draws, axis=1)(at)
    return values
