"""Curves of one law fitted together: which shapes they share, and where on each curve the shape lies.

Each curve is depth · g(z - μ) + a smooth departure, with one shape g for all of them, each curve's own μ and
depth, and departures that grow with the rise (a Gaussian process over log₂ α). Three passes: all shapes on a
coarse grid of μ, those left on a finer one, and at last their variants too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.curves import Curve
from lora_alpha.analysis.noise import Contrasts, contrasts
from lora_alpha.analysis.shapes import shape_table, shape_values
from lora_alpha.analysis.variants import AT_MINIMUM, Placed, matern, variants

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

WINDOW = 3.0  # octaves about the minimum in which cells inform it
HIGHEST = 40.0  # cells above it, in units of the rise one octave off, tell little about the minimum
MIN_CELLS = 5  # nearest cells that are used even beyond the window
BEYOND = 4.0  # octaves outside the cells in which a minimum is looked for
# Standard deviation of the departures, as a share of the rise; and how likely each is beforehand.
DEPARTURES = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
DEPARTURE_PRIOR = np.array([0.1, 0.1, 0.3, 0.3, 0.15, 0.05])
MIN_NOISE = 0.01  # runs are never taken as more exact than this share of the rise one octave off
ENOUGH_FREEDOM = 30  # degrees of freedom from which the variance counts as known
SEARCH_STEP = 1 / 8  # octaves between positions in the first pass
POSITIONS = (0, 28, 48)  # how many the later passes try in the range that is left
NUM_PARENTS = 8
NUM_VARIANTS = 16
LEAST_PARENT = 0.02  # of the weight of the best shape
KEPT = 24  # shapes that are kept in any case
NEGLIGIBLE = (1e-5, 1e-4)  # shapes below this share of the best one's weight are given up


@dataclass(frozen=True, eq=False)
class Window:
    """The cells of a curve near its minimum, and where that is looked for."""

    curve: Curve
    x: Array
    found: Contrasts
    centre: float
    searched: Array  # (M,)


@dataclass(frozen=True, eq=False)
class Settings:
    """Pairs of a departure's size and a run's variance, with how likely each is beforehand: (H,) each."""

    departure: Array
    variance: Array
    log_prior: Array


@dataclass(frozen=True, eq=False)
class CurveFit:
    """One curve under every setting, position and shape: (H, M, K) each."""

    searched: Array  # (M,)
    log_likelihood: Array
    depth: Array
    precision: Array  # of the depth

    def of_shapes(self, kept: NDArray[np.bool_]) -> CurveFit:
        """The same of some shapes alone."""
        return CurveFit(
            self.searched, self.log_likelihood[..., kept], self.depth[..., kept], self.precision[..., kept]
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What the passes end with; ``rises`` are those of each window's cells."""

    windows: list[Window]
    fits: list[CurveFit]
    settings: Settings
    rises: list[Array]
    belief: Belief


@dataclass(frozen=True, eq=False)
class Belief:
    """What a pass knows: shapes still believed in with their weights, each curve's middle and depth."""

    table: Array  # (T, K)
    log_prior: Array  # (K,)
    weights: Array  # (H, K)
    centres: Array
    depths: Array
    ranges: list[tuple[float, float]]

    def of_shapes(self, kept: NDArray[np.bool_]) -> Belief:
        """The same of some shapes alone."""
        return replace(
            self,
            table=np.ascontiguousarray(self.table[:, kept]),
            log_prior=self.log_prior[kept],
            weights=self.weights[:, kept],
        )


def fit_basins(curves: Sequence[Curve], rng: np.random.Generator) -> Fitted:
    """All passes over ``curves``.

    Shapes are weighed by their best fit, not by how many positions fit a little, and every shape counts alike
    beforehand: an abrupt basin must be as believable as a smooth one.
    """
    belief = _start(curves)
    fits: list[CurveFit] = []
    settings = Settings(*(np.empty(0) for _ in range(3)))
    for step in range(len(POSITIONS)):
        windows = [
            _window(curve, belief, row, _positions(curve, belief, row, step))
            for row, curve in enumerate(curves)
        ]
        before = settings
        settings = _settings(windows, belief.depths, screening=step == 0)
        rises = [_rise_of_cells(window, belief, row) for row, window in enumerate(windows)]
        if step == len(POSITIONS) - 1:
            belief = _with_variants(belief, windows, fits, before, rises, rng)
        fits = [
            _fit(window, rise, float(depth), settings, belief.table)
            for window, rise, depth in zip(windows, rises, belief.depths, strict=True)
        ]
        belief = _combine(windows, fits, settings, belief)
        if step < len(POSITIONS) - 1:
            by_shape = belief.weights.sum(0)
            kept = by_shape > NEGLIGIBLE[step] * by_shape.max()
            kept[np.argsort(-by_shape, kind="stable")[:KEPT]] = True
            fits = [fit.of_shapes(kept) for fit in fits]
            belief = belief.of_shapes(kept)
    return Fitted(windows, fits, settings, rises, belief)


def _start(curves: Sequence[Curve]) -> Belief:
    """Smoothed best cells, and rises by a parabola about them."""
    centres, depths = [], []
    for curve in curves:
        runs = curve.y[np.isfinite(curve.y).any(axis=1)]
        mean = np.nanmean(runs - np.nanmean(runs, axis=1, keepdims=True), axis=0)
        padded = np.concatenate([mean[:1], mean, mean[-1:]])
        centre = float(curve.x[np.argmin(np.convolve(padded, [0.25, 0.5, 0.25], "valid"))])
        centres.append(centre)
        near = np.argsort(np.abs(curve.x - centre), kind="stable")[:MIN_CELLS]
        z = curve.x[near] - centre
        depths.append(float(np.polyfit(z, mean[near], 2)[0]))
    usual = max(float(np.median(depths)), 1e-12, 1e-3 * max(float(np.nanstd(curve.y)) for curve in curves))
    table = shape_table()
    return Belief(
        table, np.zeros(table.shape[1]), np.empty(0), np.array(centres), np.maximum(depths, usual / 4), []
    )


def _positions(curve: Curve, belief: Belief, row: int, step: int) -> Array:
    """Where the minimum of a curve is looked for in this pass."""
    low, high = max(curve.wall_low, curve.x[0] - BEYOND), min(curve.wall_high, curve.x[-1] + BEYOND)
    if step == 0:
        centre = belief.centres[row]
        low = low if centre <= curve.x[0] else max(low, centre - 2)
        high = high if centre >= curve.x[-1] else min(high, centre + 2)
        return np.linspace(low, high, round((high - low) / SEARCH_STEP) + 2)
    first, last = belief.ranges[row]
    return np.linspace(max(low, first), min(high, last), POSITIONS[step])


def _window(curve: Curve, belief: Belief, row: int, searched: Array) -> Window:
    """The cells near the middle: not beyond ``WINDOW``, nor high on a wall, but the nearest in any case."""
    centre = float(belief.centres[row])
    away = np.abs(curve.x - centre)
    kept = away <= WINDOW
    if len(belief.weights):
        kept &= _mean_shape(belief, curve.x - centre) <= HIGHEST
    kept |= away <= np.sort(away)[min(MIN_CELLS, len(away)) - 1]
    return Window(curve, curve.x[kept], contrasts(curve.y[:, kept]), centre, searched)


def _mean_shape(belief: Belief, z: Array) -> Array:
    """The shapes believed in, averaged, at ``z``; not below 0."""
    weights = belief.weights.sum(0)
    top = np.argsort(-weights, kind="stable")[:30]
    mean: Array = shape_values(belief.table[:, top], z) @ (weights[top] / weights[top].sum())
    return np.maximum(mean, 0.0)


def _settings(windows: Sequence[Window], depths: Array, *, screening: bool) -> Settings:
    """What may hold beforehand; a first pass asks no more than which shapes are out of the question."""
    departures = np.array([0.1, 0.2]) if screening else DEPARTURES
    prior = np.ones(2) / 2 if screening else DEPARTURE_PRIOR
    squares = sum(window.found.squares for window in windows)
    freedom = sum(window.found.freedom for window in windows)
    usual = float(np.median(depths))
    if freedom >= ENOUGH_FREEDOM:
        variances = np.array([squares / freedom])
    elif freedom:
        # scipy is loaded when something is fitted: a client that only reads answers starts without it.
        from scipy.special import chdtri

        variances = squares / chdtri(freedom, [1 / 6, 1 / 2, 5 / 6])
    else:
        variances = (usual * np.array([0.01, 0.03, 0.1, 0.3, 1.0])) ** 2
    variances = np.maximum(variances, (MIN_NOISE * usual) ** 2)
    size, variance = np.meshgrid(departures, variances, indexing="ij")
    # A curve's depth and position are fitted to it: two degrees of freedom, which the variance must not gain.
    fitted = len(windows) * np.log(variance.ravel())
    return Settings(size.ravel(), variance.ravel(), np.log(np.repeat(prior, len(variances))) + fitted)


def _rise_of_cells(window: Window, belief: Belief, row: int) -> Array:
    """How far each cell of the window lies above the minimum, in units of the rise one octave off."""
    z = window.x - window.centre
    if len(belief.weights):
        return _mean_shape(belief, z)
    values = window.found.basis @ window.found.mean
    rise: Array = (values - values.min()) / float(belief.depths[row])
    return rise


def departure_covariance(x: Array, rise: Array, depth: float) -> Array:
    """Of a departure of size 1 at ``x``: Matérn 5/2 with a length of one octave, times the rise."""
    size = depth * (AT_MINIMUM + rise)
    covariance: Array = matern(x[:, None] - x[None, :]) * np.outer(size, size)
    return covariance


def _fit(window: Window, rise: Array, depth: float, settings: Settings, table: Array) -> CurveFit:
    """The likelihood of every position and shape, the depth at its best value (never below 0)."""
    basis, mean = window.found.basis, window.found.mean
    values = shape_values(table, window.x[:, None] - window.searched[None, :])  # (n, M, K)
    shape = values.shape[1:]
    contrast = basis.T @ values.reshape(len(window.x), -1)
    departure = basis.T @ departure_covariance(window.x, rise, depth) @ basis
    found = np.empty((3, len(settings.variance), *shape))
    for row, (size, variance) in enumerate(zip(settings.departure, settings.variance, strict=True)):
        root = np.linalg.cholesky(variance * window.found.spread + size**2 * departure)
        inverse = np.linalg.inv(root)
        data, model = inverse @ mean, inverse @ contrast
        precision = np.einsum("ij,ij->j", model, model)
        product = data @ model
        best = product / precision
        log = -0.5 * float(data @ data) - float(np.log(np.diag(root)).sum())
        log = log + 0.5 * np.maximum(product, 0.0) * best
        for kind, array in enumerate((log, best, precision)):
            found[kind, row] = array.reshape(shape)
    return CurveFit(window.searched, *found)


def _combine(
    windows: Sequence[Window], fits: Sequence[CurveFit], settings: Settings, belief: Belief
) -> Belief:
    """Weights of settings and shapes over all curves; each curve's middle, depth and what range remains."""
    log = settings.log_prior[:, None] + belief.log_prior + sum(_peak(fit.log_likelihood) for fit in fits)
    weights = np.exp(log - log.max())
    weights /= weights.sum()
    centres, depths, ranges = [], [], []
    for window, fit in zip(windows, fits, strict=True):
        share = np.exp(fit.log_likelihood - fit.log_likelihood.max(1, keepdims=True))
        share *= (weights / share.sum(1))[:, None, :]
        by_position = share.sum((0, 2))
        step = window.searched[1] - window.searched[0]
        reached = np.cumsum(by_position)
        first, last = np.searchsorted(reached, [1e-4, 1 - 1e-4])
        last = min(int(last), len(window.searched) - 1)
        ranges.append((window.searched[first] - 2 * step, window.searched[last] + step))
        centres.append(float(by_position @ window.searched))
        likely = max(float(fit.depth.flat[share.argmax()]), 1e-12)
        depths.append(likely * math.exp(float((share * np.log(np.clip(fit.depth / likely, 1 / 8, 8))).sum())))
    usual = max(float(np.median(depths)), 1e-12)
    return replace(
        belief,
        weights=weights,
        centres=np.array(centres),
        depths=np.maximum(depths, 1e-3 * usual),
        ranges=ranges,
    )


def _with_variants(
    belief: Belief,
    windows: Sequence[Window],
    fits: Sequence[CurveFit],
    settings: Settings,
    rises: Sequence[Array],
    rng: np.random.Generator,
) -> Belief:
    """The shapes believed in, and variants of the best; ``fits`` and ``settings`` are the pass before's."""
    by_shape = belief.weights.sum(0)
    parents = np.argsort(-by_shape, kind="stable")[:NUM_PARENTS]
    tables, priors = [belief.table], [belief.log_prior]
    for parent in parents[by_shape[parents] > LEAST_PARENT * by_shape.max()]:
        likely = int(belief.weights[:, parent].argmax())
        # What looks like a departure of each curve of its own may be common to all.
        exact = int(np.where(settings.departure == 0, belief.weights[:, parent], -1.0).argmax())
        for setting in {likely, exact}:
            placed = [
                _placed(window, fit, rise, float(depth), settings, setting, int(parent))
                for window, fit, rise, depth in zip(windows, fits, rises, belief.depths, strict=True)
            ]
            made, log = variants(belief.table[:, parent], placed, rng, NUM_VARIANTS)
            tables.append(made)
            priors.append(belief.log_prior[parent] + log)
    return replace(
        belief,
        table=np.ascontiguousarray(np.concatenate(tables, axis=1)),
        log_prior=np.concatenate(priors),
    )


def _placed(
    window: Window, fit: CurveFit, rise: Array, depth: float, settings: Settings, setting: int, shape: int
) -> Placed:
    """Where a shape lies best on a curve, under one setting."""
    basis = window.found.basis
    departure = basis.T @ departure_covariance(window.x, rise, depth) @ basis
    covariance = settings.variance[setting] * window.found.spread
    covariance = covariance + settings.departure[setting] ** 2 * departure
    best = int(fit.log_likelihood[setting, :, shape].argmax())
    return Placed(
        x=window.x,
        basis=basis,
        mean=window.found.mean,
        precision=np.linalg.inv(covariance),
        middle=float(fit.searched[best]),
        depth=max(float(fit.depth[setting, best, shape]), 1e-3 * depth),
    )


def _peak(log: Array) -> Array:
    """The maximum over positions (axis 1), between them by a parabola: (H, K) for (H, M, K).

    Where the curve breaks off beside its maximum it has the least of the bends there, or a cliff would be
    taken for a narrow peak.
    """
    last = log.shape[1] - 2
    bends = np.zeros_like(log)
    bends[:, 1:-1] = 2 * log[:, 1:-1] - log[:, :-2] - log[:, 2:]
    top = np.clip(log.argmax(1), 1, last)[:, None]
    left, here, right = (np.take_along_axis(log, top + way, axis=1)[:, 0] for way in (-1, 0, 1))
    around = [np.take_along_axis(bends, np.clip(top + way, 1, last), axis=1)[:, 0] for way in (-1, 0, 1)]
    offset = np.clip((right - left) / (2 * np.maximum(around[1], 1e-12)), -0.5, 0.5)
    gain = np.maximum(np.minimum.reduce(around), 0.0) * offset**2 / 2
    inside = (here >= left) & (here >= right)
    return np.where(inside, here + gain, np.maximum(left, right))
