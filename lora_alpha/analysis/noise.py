"""What seeds do to curves of cost: a level of their own, noise from run to run, and tilts.

A seed's level over a curve carries no information about where the curve is lowest and is removed exactly.
What is left is known from contrasts between seeds: the variance of one run, and straight tilts of whole
curves, of a seed over all curves or of one curve alone. A tilt moves a curve's minimum; one that a seed
shares over all ranks moves every optimum alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SHARES = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 24)])  # variances of tilts, in units of noise's


@dataclass(frozen=True)
class Contrasts:
    """The differences between the cells of one curve, every seed's level removed.

    Attributes:
        basis: (n, n-1), orthonormal, orthogonal to a constant.
        mean: (n-1,), their least-squares estimates.
        spread: (n-1, n-1), the covariance of ``mean`` for runs of variance 1.
        residual: (S, n), what is left of each run; NaN where there is none.
        squares: Sum of the squared residuals.
        freedom: Their degrees of freedom.
    """

    basis: Array
    mean: Array
    spread: Array
    residual: Array
    squares: float
    freedom: int


def contrasts(y: Array) -> Contrasts:
    """The contrasts of a curve of costs ``y`` (S, n), NaN where a run is missing; every cell has a run."""
    here = np.isfinite(y)
    costs = np.where(here, y, 0.0)
    num_cells = y.shape[1]
    basis = _helmert(num_cells)
    # Least squares for cells and levels together; the levels eliminated.
    present = here.astype(np.float64)
    runs = np.maximum(present.sum(1), 1.0)
    precision = np.diag(present.sum(0)) - present.T @ (present / runs[:, None])
    weighted = costs.sum(0) - present.T @ (costs.sum(1) / runs)
    inner = basis.T @ precision @ basis
    # Cells that no seed connects tell nothing of each other: their contrast is as good as unknown.
    spread = np.linalg.inv(inner + 1e-9 * np.eye(num_cells - 1))
    mean = spread @ (basis.T @ weighted)
    left = costs - (basis @ mean)[None, :]
    left -= (np.where(here, left, 0.0).sum(1) / runs)[:, None]
    residual = np.where(here, left, np.nan)
    freedom = int(here.sum() - here.any(1).sum() - (num_cells - 1))
    return Contrasts(basis, mean, spread, residual, float(np.nansum(residual**2)), max(freedom, 0))


def tilt_draws(
    found: Sequence[Contrasts],
    z: Sequence[Array],
    rises: Array,
    variance: float,
    rng: np.random.Generator,
    num: int,
) -> Array:
    """Draws of the tilt in the mean of each curve over its seeds: (R, num), as shares of the curve's rise.

    The slopes of the residuals about z are seen as seed + curve + noise. Both variances have a prior of one
    half at 0 and are drawn from their posterior on a grid; with few seeds that posterior has the long tail
    that Student's t has.

    Args:
        found: Contrasts of each curve.
        z: Octaves from the middle of each curve's window, (n,) each.
        rises: Rise of each curve at one octave, (R,).
        variance: Of one run.
        rng: Source of draws.
        num: How many.
    """
    num_seeds, num_curves = found[0].residual.shape[0], len(found)
    if num_seeds < 2:
        return np.zeros((num_curves, num))
    slopes = np.full((num_curves, num_seeds), np.nan)
    errors = np.full((num_curves, num_seeds), np.nan)
    for row, (curve, position) in enumerate(zip(found, z, strict=True)):
        here = np.isfinite(curve.residual)
        count = here.sum(1)
        centred = (
            np.where(here, position - (here @ position / np.maximum(count, 1))[:, None], 0.0) * rises[row]
        )
        weight = (centred**2).sum(1)
        good = (count >= 3) & (weight > 0)
        slopes[row, good] = (centred * np.where(here, curve.residual, 0.0)).sum(1)[good] / weight[good]
        errors[row, good] = variance / weight[good]
    rows = np.isfinite(slopes).all(1)
    if not rows.any():
        return np.zeros((num_curves, num))
    slopes, error = slopes[rows], float(errors[rows].mean())
    count = len(slopes)
    slopes = slopes - slopes.mean(1, keepdims=True)
    by_seed = slopes.mean(0)
    between = count * float((by_seed**2).sum())  # (seeds - 1) degrees of freedom
    within = float(((slopes - by_seed) ** 2).sum())  # (curves - 1)·(seeds - 1)
    own, shared = np.meshgrid(SHARES, SHARES if count > 1 else SHARES[:1], indexing="ij")
    log = _log_chi(between, error * (1 + own + count * shared), num_seeds - 1)
    log = log + _log_chi(within, error * (1 + own), (count - 1) * (num_seeds - 1))
    log = log + np.log(np.where(own == 0, 0.5, 0.5 / (len(SHARES) - 1)))
    if count > 1:
        log = log + np.log(np.where(shared == 0, 0.5, 0.5 / (len(SHARES) - 1)))
    weights = np.exp(log - log.max()).ravel()
    picked = rng.choice(len(weights), size=num, p=weights / weights.sum())
    scale = error / num_seeds
    common = np.sqrt(scale * shared.ravel()[picked]) * rng.standard_normal(num)
    single = np.sqrt(scale * own.ravel()[picked]) * rng.standard_normal((num_curves, num))
    draws: Array = common + single
    return draws


def _log_chi(squares: float, variance: Array, freedom: int) -> Array:
    """Log-likelihood of a sum of squares with ``freedom`` degrees of freedom, each of ``variance``."""
    log: Array = -0.5 * (freedom * np.log(variance) + squares / variance)
    return log


def _helmert(n: int) -> Array:
    basis = np.zeros((n, n - 1))
    for column in range(1, n):
        basis[:column, column - 1] = 1 / np.sqrt(column * (column + 1))
        basis[column, column - 1] = -column / np.sqrt(column * (column + 1))
    return basis
