"""Variants of a shape: what all curves of a sweep have in common beyond the shapes of the list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.shapes import positions, shape_values

Array = NDArray[np.float64]

KNOTS = np.arange(-3.0, 3.01, 0.75)  # octaves from the minimum where a variant is free
SIZE = 0.15  # standard deviation of a variant, as a share of the rise
AT_MINIMUM = 0.1  # of departures there, as a share of the rise one octave off
STEPS = 5
WIDER = 1.05  # variants are drawn from a posterior this much wider than its Gaussian


@dataclass(frozen=True, eq=False)
class Placed:
    """One curve under a shape: cells ``x`` (n,), contrasts ``mean`` (n-1,) = basisᵀ·costs with their inverse
    covariance, and the position and depth that fit best.
    """

    x: Array
    basis: Array
    mean: Array
    precision: Array
    middle: float
    depth: float


def variants(
    shape: Array, curves: Sequence[Placed], rng: np.random.Generator, num: int
) -> tuple[Array, Array]:
    """Variants g + (g + AT_MINIMUM)·δ of a shape that suit all ``curves``, δ smooth over z = log₂(α/α*).

    Positions, depths and δ are fitted together by Gauss-Newton; variants are drawn from the posterior of δ.

    Args:
        shape: g on the grid of z, (T,).
        curves: Where the shape lies on each curve.
        rng: Source of draws.
        num: How many.

    Returns:
        The variants (T, num), and the log-prior of each (num,) in units of their shape's.
    """
    table = np.concatenate([shape[:, None], (shape[:, None] + AT_MINIMUM) * _functions()], axis=1)
    weights, deviation, directions = _posterior(table, curves)
    noise = rng.standard_normal((len(weights), num))
    drawn = weights[:, None] + WIDER * directions @ (deviation[:, None] * noise)
    log = 0.5 * (noise**2).sum(0) - 0.5 * (drawn**2).sum(0) / SIZE**2
    # Weighed by the best fit, less what chance alone gains with each weight that is decided, not by volume.
    log -= 0.5 * float((1 - deviation**2 / SIZE**2).sum())
    made: Array = table[:, :1] + table[:, 1:] @ drawn
    return made, log - math.log(num)


@cache
def _functions() -> Array:
    """δ is a weighted sum of these with independent standard normal weights: (T, len(KNOTS))."""
    covariance = matern(KNOTS[:, None] - KNOTS[None, :])
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(KNOTS)))
    functions: Array = np.linalg.solve(root, matern(KNOTS[:, None] - positions()[None, :])).T
    return functions


def matern(distance: Array) -> Array:
    """The Matérn 5/2 correlation over a ``distance`` in octaves, its length one octave."""
    away = math.sqrt(5) * np.abs(distance)
    correlation: Array = (1 + away + away**2 / 3) * np.exp(-away)
    return correlation


def _posterior(table: Array, curves: Sequence[Placed]) -> tuple[Array, Array, Array]:
    """The weights, positions and depths integrated over: mean, and deviations along orthogonal directions."""
    slopes = np.gradient(table, positions(), axis=0)
    num = table.shape[1] - 1
    weights = np.zeros(num)
    middle = np.array([curve.middle for curve in curves])
    depth = np.array([curve.depth for curve in curves])
    for _ in range(STEPS):
        # Each curve's own two unknowns are eliminated: what is left informs the weights.
        information, target = np.eye(num) / SIZE**2, np.zeros(num)
        parts = []
        for row, curve in enumerate(curves):
            z = curve.x - middle[row]
            values, slope = shape_values(table, z), shape_values(slopes, z)
            total = np.concatenate([[1.0], weights])
            own = curve.basis.T @ np.stack([values @ total, -depth[row] * (slope @ total)], axis=1)
            common = depth[row] * (curve.basis.T @ values[:, 1:])
            missed = curve.mean - depth[row] * (curve.basis.T @ (values @ total))
            inner = own.T @ curve.precision @ own
            sizes = np.diag(inner)
            inner += np.diag(1e-9 * np.maximum(sizes, 1e-12 * sizes.sum()) + 1e-200)
            gain = np.linalg.solve(inner, own.T @ curve.precision)
            left = curve.precision - curve.precision @ own @ gain
            information += common.T @ left @ common
            target += common.T @ left @ (missed + common @ weights)
            parts.append((gain, common, missed))
        if not np.isfinite(information).all():
            return np.zeros(num), np.full(num, SIZE), np.eye(num)
        updated = np.linalg.pinv(information, hermitian=True) @ target
        for row, (gain, common, missed) in enumerate(parts):
            step = gain @ (missed - common @ (updated - weights))
            depth[row] = float(np.clip(depth[row] + step[0], depth[row] / 2, 2 * depth[row]))
            middle[row] += float(np.clip(step[1], -0.5, 0.5))
        weights = updated
    values, directions = np.linalg.eigh((information + information.T) / 2)
    # But for rounding, nothing is known worse than beforehand.
    return weights, 1 / np.sqrt(np.maximum(values, 1 / SIZE**2)), directions
