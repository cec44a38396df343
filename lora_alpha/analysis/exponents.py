"""Which powers of α, η and r decide the cost: fitted, with what leaving out curves and seeds does to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from lora_alpha.analysis.collapse_fit import CurveFit, fit_curve, lead
from lora_alpha.analysis.collapse_runs import Runs
from lora_alpha.analysis.curve_basis import Array
from lora_alpha.analysis.leave_out import LeftOut, Sums, left_out, sums

ALPHA, LR, RANK = range(3)
BOUND = 4.0  # exponents beyond this are not looked for
GRID = ((0.0, 0.5, 1.0, 1.5, 2.0), (1.0,), (-1.5, -1.0, -0.5, 0.0, 0.5))
RIDGE = 1e-12  # keeps an exponent that no cell speaks of from being a division by 0
STEPS, HALVINGS, CLOSE = 15, 6, 1e-4


def null_directions(logs: Array) -> Array:
    """The combinations of log2 α, log2 η and log2 r that are constant over rows, as columns.

    >>> null_directions(np.array([[1.0, -3.0, 0.0], [2.0, -3.0, 1.0], [4.0, -3.0, 0.0]])).round(3).T + 0
    array([[0., 1., 0.]])
    """
    centred = logs - logs.mean(0)
    sizes, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(np.abs(vectors[:, sizes < 1e-9 * max(sizes.max(), 1.0)]))


def free_exponents(logs: Array) -> tuple[int, tuple[int, ...]] | None:
    """Which exponent is 1, and which are then decided by the cells; None where none is.

    η's is 1 where η varies, else α's.
    """
    null = null_directions(logs)
    if null.shape[1] > 1 or ((null > 1e-6).sum(0) > 1).any():
        return None
    fixed = set(np.flatnonzero((null > 1e-6).any(1)))
    one = ALPHA if LR in fixed else LR
    return one, tuple(sorted({ALPHA, LR, RANK} - fixed - {one}))


def fit_exponents(runs: Runs, *, free: Sequence[int], smoothness: float, starts: Iterable[Array]) -> CurveFit:
    """The (a, b, c) of least misfit: Gauss-Newton in ``free`` from the best of ``starts``."""
    fit = min((fit_curve(runs, d, smoothness) for d in starts), key=lambda fit: fit.objective)
    for _ in range(STEPS if free else 0):
        step = np.zeros(3)
        wide = with_exponents(runs, fit, free)
        step[list(free)] = wide.total.solved(wide.penalty)[-len(free) :]
        for _ in range(HALVINGS):
            tried = np.clip(fit.direction + step, -BOUND, BOUND)
            better = fit_curve(runs, tried, smoothness)
            if better.objective < fit.objective:
                break
            step /= 2
        else:
            break
        moved, fit = np.abs(tried - fit.direction).max(), better
        if moved < CLOSE:
            break
    return fit


def with_exponents(runs: Runs, fit: CurveFit, free: Sequence[int]) -> CurveFit:
    """``fit`` with the free exponents among its parameters, to first order: the design's last columns."""
    logs = runs.logs[:, list(free)]
    design = np.hstack([fit.design, fit.slope[:, None] * (logs - logs.mean(0))])
    penalty = np.pad(fit.penalty, (0, len(free)))
    penalty[-len(free) :, -len(free) :] = np.eye(len(free)) * RIDGE
    weighted = design.T * runs.weights
    total = replace(fit.total, gram=weighted @ design, cross=weighted @ runs.means)
    return replace(fit, design=design, penalty=penalty, total=total)


def exponents_without(runs: Runs, fit: CurveFit, free: Sequence[int]) -> LeftOut:
    """The free exponents again without each cluster and seed; ``fit`` is ``with_exponents``."""

    def estimate(left: Sums) -> Array:
        return fit.direction[list(free)] + left.solved(fit.penalty)[..., -len(free) :]

    return left_out(sums(runs, fit.design), estimate)


def exponent_errors(runs: Runs, fit: CurveFit, free: Sequence[int]) -> tuple[Array, Array]:
    """Standard error and degrees of freedom of each free exponent; ``fit`` is ``with_exponents``."""
    inverse = np.linalg.inv(fit.total.gram + fit.penalty)[-len(free) :]
    by_cell = (fit.design @ inverse.T) ** 2 * runs.weights[:, None]
    loadings = np.zeros((runs.num_clusters, len(free)))
    np.add.at(loadings, runs.cluster, by_cell)
    return exponents_without(runs, fit, free).error(loadings)


def start_grid(one: int, free: Sequence[int]) -> list[Array]:
    """Where to look from: exponent ``one`` is 1, those not in ``free`` 0."""
    axes = [GRID[i] if i in free else ((1.0,) if i == one else (0.0,)) for i in range(3)]
    return [np.array([a, b, c]) for a in axes[0] for b in axes[1] for c in axes[2]]


def is_decided(runs: Runs, fit: CurveFit, exponent: int, *, free: Sequence[int], smoothness: float) -> bool:
    """Whether curves with ``exponent`` one higher and one lower explain less, the others refitted."""
    others = [i for i in free if i != exponent]
    truth = with_exponents(runs, fit, free)
    for away in (-1.0, 1.0):
        start = fit.direction + away * np.eye(3)[exponent]
        rival = fit_exponents(runs, free=others, smoothness=smoothness, starts=[start])
        if lead(runs, fit, rival, truth).low <= 0:
            return False
    return True
