"""Costs as a floor of each rank plus one smooth curve of log2 α^a·η^b·r^c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.collapse_runs import Runs
from lora_alpha.analysis.curve_basis import Array, roughness, spline_basis
from lora_alpha.analysis.intervals import t_quantile
from lora_alpha.analysis.leave_out import Sums

MOST_SEGMENTS = 24
CELLS_PER_SEGMENT = 4
RIDGE = 1e-9  # tells the level of the curve from the floors; share of the number of runs
OVERFITTING = 1.4  # weight of a parameter in choosing the smoothness: Kim & Gu 2004
LEAST_OWN = 1e-3  # of a cell's own residual that always remains
SMOOTHNESS = tuple(10.0**power for power in range(-3, 3))  # of the penalty, least to most


@dataclass(frozen=True)
class CurveFit:
    """Floors and curve of one direction (a, b, c).

    Attributes:
        direction: (a, b, c).
        x: (n,) log2 of the coordinate.
        fitted: (n,) cost by floor and curve.
        slope: (n,) derivative of the curve by x.
        floors: (R,) floor of each rank, the mean over cells 0.
        design: (n, k) the columns of the fit.
        total: Sums over all runs.
        penalty: (k, k) what keeps the curve smooth.
        misfit: Sum of squares of the runs about the fit.
        objective: ``misfit`` and penalty.
        freedom: Effective number of parameters.
    """

    direction: Array
    x: Array
    fitted: Array
    slope: Array
    floors: Array
    design: Array
    total: Sums
    penalty: Array
    misfit: float
    objective: float
    freedom: float


def fit_curve(runs: Runs, direction: Array, smoothness: float) -> CurveFit:
    """The fit of one direction (a, b, c); the cells must differ in it."""
    x = runs.logs @ direction
    num_segments = int(np.clip(len(x) // CELLS_PER_SEGMENT, 2, MOST_SEGMENTS))
    basis, slopes = spline_basis(x, num_segments)
    floors = np.eye(runs.num_ranks)[runs.rank_index]
    design, width = np.hstack([basis, floors]), basis.shape[1]
    weights, means = runs.weights, runs.means
    weighted = design.T * weights
    total = Sums(weighted @ design, weighted @ means, np.array(weights.sum()))
    penalty = np.zeros_like(total.gram)
    penalty[:width, :width] = roughness(width) * smoothness * weights.sum() / width
    penalty += np.eye(len(penalty)) * RIDGE * weights.sum()
    found = total.solved(penalty)
    fitted = design @ found
    misfit = float((weights * (means - fitted) ** 2).sum()) + runs.pure
    level = found[width:]
    return CurveFit(
        direction=direction,
        x=x,
        fitted=fitted,
        slope=slopes @ found[:width],
        floors=level - level[runs.rank_index].mean(),
        design=design,
        total=total,
        penalty=penalty,
        misfit=misfit,
        objective=float(misfit + found @ penalty @ found),
        freedom=float(np.trace(np.linalg.solve(total.gram + penalty, total.gram))),
    )


def choose_smoothness(runs: Runs, directions: Sequence[Array]) -> float:
    """The smoothness by which the best direction predicts best: one for all, so that none is favoured.

    Source: Craven & Wahba 1979, generalised cross-validation.
    """
    n = len(runs.means)

    def criterion(fit: CurveFit) -> float:
        return (fit.misfit - runs.pure) / max(n - OVERFITTING * fit.freedom, 0.1) ** 2

    best = {s: min(criterion(fit_curve(runs, d, s)) for d in directions) for s in SMOOTHNESS}
    return min(best, key=lambda smoothness: best[smoothness])


def explained(runs: Runs, fit: CurveFit) -> float:
    """Share of the variance between cells of a rank that the curve explains, less what chance does."""
    rest = (fit.misfit - runs.pure) / max(len(runs.means) - fit.freedom, 1.0)
    return 1 - rest / runs.variance


@dataclass(frozen=True)
class Lead:
    """How much more one coordinate explains than another: a difference of shares, with its 95 % interval."""

    share: float
    low: float
    high: float


def lead(runs: Runs, first: CurveFit, second: CurveFit, truth: CurveFit) -> Lead:
    """By how much ``first`` explains more than ``second`` over these cells.

    The difference of two sums of squares is linear in the noise to first order: its variance comes from what
    curves are off ``truth`` by, each as a whole, and from seeds as a whole; the second-order term is that of
    independent noise.

    Source: Vuong 1989 for the two parts; Bell & McCaffrey 2002 for residuals of left-out curves.
    """
    share = explained(runs, first) - explained(runs, second)
    gradient = 2 * (_pull(runs, second, truth.fitted) - _pull(runs, first, truth.fitted))
    rest = _left_out_residuals(runs, truth)
    by_cluster = np.bincount(runs.cluster, gradient * rest)
    noise = runs.seed_noise(gradient)
    residual = float((runs.weights * rest**2).mean())
    second_order = 2 * residual**2 * _difference(runs, first, second)
    variance = max(float((by_cluster**2).sum()), noise.single) + noise.common + second_order
    scale = runs.variance * max(len(runs.means) - max(first.freedom, second.freedom), 1.0)
    half = t_quantile(0.975, max(runs.num_clusters - 1, 1)) * math.sqrt(variance) / scale
    return Lead(share, share - half, share + half)


def _pull(runs: Runs, fit: CurveFit, costs: Array) -> Array:
    """Half the derivative of the sum of squared misfits by each cell's mean, at ``costs``."""
    inverse = np.linalg.inv(fit.total.gram + fit.penalty)
    weighted = runs.weights[:, None] * fit.design
    rest = runs.weights * (costs - fit.design @ (inverse @ (weighted.T @ costs)))
    return np.asarray(rest - weighted @ (inverse @ (fit.design.T @ rest)))


def _left_out_residuals(runs: Runs, fit: CurveFit) -> Array:
    """Each cell's residual from the curve that is fitted without its cluster."""
    inverse = np.linalg.inv(fit.total.gram + fit.penalty)
    rest = runs.means - fit.fitted
    for cluster in range(runs.num_clusters):
        mine = runs.cluster == cluster
        design = fit.design[mine]
        own = np.eye(len(design)) - design @ inverse @ design.T * runs.weights[mine]
        rest[mine] = np.linalg.solve(own + LEAST_OWN * np.eye(len(design)), rest[mine])
    return rest


def _difference(runs: Runs, first: CurveFit, second: CurveFit) -> float:
    """Sum of squares of the difference of the two fits as matrices."""

    def overlap(one: CurveFit, other: CurveFit) -> float:
        between = one.design.T @ (runs.weights[:, None] * other.design)
        left = np.linalg.solve(one.total.gram + one.penalty, between)
        right = np.linalg.solve(other.total.gram + other.penalty, between.T)
        return float((left * right.T).sum())

    return max(overlap(first, first) + overlap(second, second) - 2 * overlap(first, second), 0.0)
