"""All curves of one law taken together: where each is lowest, how sure that is, and what lies around it.

The answer is a set of joint draws, from which every estimate of an optimum, a basin, a law or a regret is
read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.basin_fit import Fitted, departure_covariance, fit_basins
from lora_alpha.analysis.curves import Curve, CurveDraws
from lora_alpha.analysis.noise import contrasts, tilt_draws
from lora_alpha.analysis.shapes import shape_of_draw

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NUM_DRAWS = 400
GRID = 1 / 8  # octaves between the positions of drawn curves
MARGIN = 0.5  # octaves that they go on beyond all cells and positions


@dataclass(frozen=True, eq=False)
class Surface:
    """The curves of one law, in the order given; draw d is the same world in all of them."""

    curves: tuple[CurveDraws, ...]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """One curve of every draw without its departure: depth · shape(x - middle), (D,) each."""

    table: Array  # (T, K)
    setting: Indices
    shape: Indices
    middle: Array
    depth: Array

    def at(self, x: Array) -> Array:
        """Values at positions (N,), the same for all draws, or (D, N): (D, N)."""
        return self.depth[:, None] * shape_of_draw(self.table, x - self.middle[:, None], self.shape)


def fit_surface(curves: Sequence[Curve]) -> Surface:
    """Joint draws of all ``curves``, at least one, each of three cells or more.

    The same curves give the same draws.
    """
    rng = np.random.default_rng(len(curves))
    fitted = fit_basins(curves, rng)
    weights = fitted.belief.weights
    picked = rng.choice(weights.size, size=NUM_DRAWS, p=weights.ravel())
    setting, shape = np.unravel_index(picked, weights.shape)
    tilts = tilt_draws(
        [window.found for window in fitted.windows],
        [window.x - window.centre for window in fitted.windows],
        fitted.belief.depths,
        float(fitted.settings.variance[setting].mean()),
        rng,
        NUM_DRAWS,
    )
    return Surface(tuple(_draw(fitted, row, setting, shape, tilt, rng) for row, tilt in enumerate(tilts)))


def _draw(
    fitted: Fitted, row: int, setting: Indices, shape: Indices, tilt: Array, rng: np.random.Generator
) -> CurveDraws:
    window, fit = fitted.windows[row], fitted.fits[row]
    log_likelihood = fit.log_likelihood[setting, :, shape]  # (D, M)
    share = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True)).cumsum(1)
    place = np.minimum((share < share[:, -1:] * rng.random((NUM_DRAWS, 1))).sum(1), share.shape[1] - 1)
    step = fit.searched[1] - fit.searched[0]
    best, precision = fit.depth[setting, place, shape], fit.precision[setting, place, shape]
    drawn = _Drawn(
        table=fitted.belief.table,
        setting=setting,
        shape=shape,
        middle=fit.searched[place] + (rng.random(NUM_DRAWS) - 0.5) * step,
        depth=np.maximum(best + rng.standard_normal(NUM_DRAWS) / np.sqrt(precision), 0.05 * np.abs(best)),
    )
    low = max(min(window.curve.x[0], fit.searched[0]) - MARGIN, window.curve.wall_low)
    high = min(max(window.curve.x[-1], fit.searched[-1]) + MARGIN, window.curve.wall_high)
    grid = np.linspace(low, high, math.ceil((high - low) / GRID) + 1)
    departure = _departures(fitted, row, drawn, grid, rng)
    departure += fitted.belief.depths[row] * tilt * (grid - window.centre)[:, None]
    where, lowest = _minimum(grid, departure, drawn)
    values = drawn.at(grid[None, :]).T + departure
    values = _as_measured(window.curve, (window.x[0], window.x[-1]), grid, values)
    place = int(np.searchsorted(window.curve.x, np.median(where)))
    between = 0 < place < len(window.curve.x)
    gap = float(window.curve.x[place] - window.curve.x[place - 1]) if between else 0.0
    return CurveDraws(where, grid, np.maximum(values - lowest, 0.0), fit.searched, log_likelihood.T, gap)


def _departures(fitted: Fitted, row: int, drawn: _Drawn, grid: Array, rng: np.random.Generator) -> Array:
    """Draws of the smooth departure on ``grid`` given the cells: (G, D).

    A draw from the prior is corrected by what it misses of the data (Matheron's rule).
    """
    window, rise, settings = fitted.windows[row], fitted.rises[row], fitted.settings
    x, basis, n = window.x, window.found.basis, len(window.x)
    everywhere = np.concatenate([x, grid])
    covariance = departure_covariance(
        everywhere, np.concatenate([rise, np.interp(grid, x, rise)]), float(fitted.belief.depths[row])
    )
    root = np.linalg.cholesky(covariance + 1e-8 * np.diag(np.diag(covariance)))
    prior = root @ rng.standard_normal((len(everywhere), NUM_DRAWS))
    noise = np.linalg.cholesky(window.found.spread) @ rng.standard_normal((n - 1, NUM_DRAWS))
    missed = window.found.mean[:, None] - basis.T @ drawn.at(x[None, :]).T
    missed -= np.sqrt(settings.variance[drawn.setting]) * noise
    departure = np.zeros((len(grid), NUM_DRAWS))
    for index, (size, variance) in enumerate(zip(settings.departure, settings.variance, strict=True)):
        mine = drawn.setting == index
        if size and mine.any():
            total = variance * window.found.spread + size**2 * basis.T @ covariance[:n, :n] @ basis
            own = size * prior[:, mine]
            weights = np.linalg.solve(total, missed[:, mine] - basis.T @ own[:n])
            departure[:, mine] = own[n:] + size**2 * covariance[n:, :n] @ (basis @ weights)
    return departure


def _minimum(grid: Array, departure: Array, drawn: _Drawn) -> tuple[Array, Array]:
    """Position and value of each draw's minimum: (D,), (D,); within 1/128 octave, at a kink exactly."""
    draws, step = np.arange(NUM_DRAWS), grid[1] - grid[0]
    values = drawn.at(grid[None, :]).T + departure
    nearest = np.clip(np.argmin(values, axis=0), 1, len(grid) - 2)
    left, here, right = (departure[nearest + way, draws] for way in (-1, 0, 1))
    slope, bend = (right - left) / 2, (left + right) / 2 - here
    fine = np.broadcast_to(np.linspace(-1, 1, 33), (NUM_DRAWS, 33))
    own = np.clip((drawn.middle - grid[nearest]) / step, -1, 1)[:, None]
    offset = np.concatenate([fine, own], axis=1)  # in steps of the grid
    at = grid[nearest][:, None] + offset * step
    fine_values = drawn.at(at) + here[:, None] + slope[:, None] * offset + bend[:, None] * offset**2
    lowest = np.argmin(fine_values, axis=1)
    return at[draws, lowest], fine_values[draws, lowest]


def _as_measured(curve: Curve, window: tuple[float, float], grid: Array, values: Array) -> Array:
    """``values`` (G, D); outside the window they go on by the differences between cells."""
    found = contrasts(curve.y)
    costs = found.basis @ found.mean
    for edge, far in ((window[0], grid < window[0]), (window[1], grid > window[1])):
        far &= (grid >= curve.x[0]) & (grid <= curve.x[-1])
        if far.any():
            start = np.array([np.interp(edge, grid, draw) for draw in values.T])
            values[far] = (
                start + (np.interp(grid[far], curve.x, costs) - np.interp(edge, curve.x, costs))[:, None]
            )
    return values
