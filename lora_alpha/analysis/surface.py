"""All curves of one law taken together: where each is lowest, how sure that is, and what lies around it.

Each curve is depth · g(z - μ) + a smooth departure, with one shape g for all of them, chosen among
``shapes``, each curve's own μ and depth, and departures that grow with the rise (a Gaussian process over log₂ α).
The answer is a set of joint draws, from which every estimate of an optimum, a basin, a law or a regret is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


from lora_alpha.analysis.noise import Contrasts, contrasts, tilt_draws
from lora_alpha.analysis.shapes import shape_of_draw, shape_table, shape_values
from lora_alpha.analysis.variants import Placed, variants

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NUM_DRAWS = 400
WINDOW = 3.0  # octaves about the minimum in which cells inform it
HIGHEST = 20.0  # cells above it, in units of the rise one octave off, tell little about the minimum
MIN_CELLS = 5  # nearest cells that are used even beyond the window
BEYOND = 4.0  # octaves outside the cells in which a minimum is looked for
# Standard deviation of the departures, as a share of the rise; and how likely each is beforehand.
DEPARTURES = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
DEPARTURE_PRIOR = np.array([0.1, 0.1, 0.3, 0.3, 0.15, 0.05])
AT_MINIMUM = 0.1  # departures there, as a share of the rise one octave off
MIN_NOISE = 0.01  # runs are never taken as more exact than this share of the rise one octave off
ENOUGH_FREEDOM = 30  # degrees of freedom from which the variance counts as known
GRID = 1 / 8  # octaves between the positions of drawn curves
PASSES = (1 / 8, 28, 48)  # first the step in octaves of the search, then its number of positions
NUM_PARENTS = 8
NUM_VARIANTS = 16
LEAST_PARENT = 0.02
NEGLIGIBLE = (1e-5, 1e-4)


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
    """

    where: Array
    grid: Array
    rise: Array
    searched: Array
    log_likelihood: Array

    def excess(self, x: float) -> Array:
        """Cost at log₂ position ``x`` above the curve's minimum: (D,)."""
        place = float(np.clip((x - self.grid[0]) / (self.grid[1] - self.grid[0]), 0, len(self.grid) - 1.001))
        below = int(place)
        between: Array = self.rise[below] + (place - below) * (self.rise[below + 1] - self.rise[below])
        return between

    def reaches(self, tolerance: float, *, way: int) -> Array:
        """How far from its minimum each draw stays within ``tolerance`` of it, to one side: positions (D,).

        Args:
            tolerance: Above the minimum, in the unit of the costs.
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
            np.clip((tolerance - below) / np.maximum(above - below, 1e-300), 0, 1),
        )
        start = np.where(near, where, before)
        return np.where(outside.any(0), start + share * (after - start), grid[-1])


@dataclass(frozen=True, eq=False)
class Surface:
    """The curves of one law, in the order given; draw d is the same world in all of them."""

    curves: tuple[CurveDraws, ...]


@dataclass(frozen=True, eq=False)
class _Window:
    """The cells of a curve near its minimum, and where that is looked for."""

    curve: Curve
    x: Array
    found: Contrasts
    centre: float
    searched: Array  # (M,)


@dataclass(frozen=True, eq=False)
class _Settings:
    """Pairs of a departure's size and a run's variance, with how likely each is beforehand: (H,) each."""

    departure: Array
    variance: Array
    log_prior: Array


@dataclass(frozen=True, eq=False)
class _Fit:
    """One curve under every setting, position and shape: (H, M, K) each."""

    searched: Array  # (M,)
    log_likelihood: Array
    depth: Array
    precision: Array  # of the depth

    def of_shapes(self, kept: NDArray[np.bool_]) -> _Fit:
        """The same of some shapes alone."""
        return _Fit(
            self.searched, self.log_likelihood[..., kept], self.depth[..., kept], self.precision[..., kept]
        )


@dataclass(frozen=True, eq=False)
class _State:
    """What a pass knows: shapes still believed in, their weights, and of each curve its middle and its rise."""

    table: Array  # (T, K)
    log_prior: Array  # (K,)
    weights: Array  # (H, K)
    centres: Array
    depths: Array
    ranges: list[tuple[float, float]]


def fit_surface(curves: Sequence[Curve], *, num_draws: int = NUM_DRAWS) -> Surface:
    """Joint draws of all ``curves``, at least one, each of three cells or more.

    Shapes are weighed by their best fit, not by how many positions fit a little, and every shape counts alike
    beforehand: an abrupt basin must be as believable as a smooth one. The same curves give the same draws.
    """
    rng = np.random.default_rng(len(curves))
    state = _start(curves)
    for step in range(len(PASSES)):
        windows = [
            _window(curve, state, row, _positions(curve, state, row, step))
            for row, curve in enumerate(curves)
        ]
        settings = _settings(windows, state.depths, screening=step == 0)
        rises = [_rise_of_cells(window, state, row) for row, window in enumerate(windows)]
        if step == len(PASSES) - 1:
            state = _with_variants(state, windows, fits, settings, rises, rng)
        fits = [
            _fit(window, rise, float(depth), settings, state.table)
            for window, rise, depth in zip(windows, rises, state.depths, strict=True)
        ]
        state = _combine(windows, fits, settings, state)
        if step < len(PASSES) - 1:
            kept = state.weights.sum(0) > NEGLIGIBLE[step] * state.weights.sum(0).max()
            fits = [fit.of_shapes(kept) for fit in fits]
            state = replace(
                state,
                table=np.ascontiguousarray(state.table[:, kept]),
                log_prior=state.log_prior[kept],
                weights=state.weights[:, kept],
            )
    return _draw(windows, fits, settings, rises, state, rng, num_draws)


def _start(curves: Sequence[Curve]) -> _State:
    """Smoothed best cells, and rises by a parabola about them."""
    centres, depths = [], []
    for curve in curves:
        level = curve.y - np.nanmean(curve.y, axis=1, keepdims=True)
        mean = np.nanmean(level, axis=0)
        padded = np.concatenate([mean[:1], mean, mean[-1:]])
        centre = float(curve.x[np.argmin(np.convolve(padded, [0.25, 0.5, 0.25], "valid"))])
        centres.append(centre)
        near = np.argsort(np.abs(curve.x - centre), kind="stable")[: max(MIN_CELLS, 2)]
        z = curve.x[near] - centre
        depths.append(float(np.polyfit(z, mean[near], 2)[0]))
    usual = max(float(np.median(depths)), 1e-12, 1e-3 * max(float(np.nanstd(curve.y)) for curve in curves))
    table = shape_table()
    return _State(
        table, np.zeros(table.shape[1]), np.empty(0), np.array(centres), np.maximum(depths, usual / 4), []
    )


def _positions(curve: Curve, state: _State, row: int, step: int) -> Array:
    """Where the minimum of a curve is looked for in this pass."""
    low, high = max(curve.wall_low, curve.x[0] - BEYOND), min(curve.wall_high, curve.x[-1] + BEYOND)
    if step == 0:
        centre = state.centres[row]
        low = low if centre <= curve.x[0] else max(low, centre - 2)
        high = high if centre >= curve.x[-1] else min(high, centre + 2)
        return np.linspace(low, high, round((high - low) / PASSES[0]) + 2)
    first, last = state.ranges[row]
    return np.linspace(max(low, first), min(high, last), int(PASSES[step]))


def _window(curve: Curve, state: _State, row: int, searched: Array) -> _Window:
    """The cells near the middle: not beyond ``WINDOW``, nor high on a wall, but the nearest in any case."""
    centre = float(state.centres[row])
    away = np.abs(curve.x - centre)
    kept = away <= WINDOW
    if len(state.weights):
        kept &= _mean_shape(state, curve.x - centre) <= HIGHEST
    kept |= away <= np.sort(away)[min(MIN_CELLS, len(away)) - 1]
    return _Window(curve, curve.x[kept], contrasts(curve.y[:, kept]), centre, searched)


def _mean_shape(state: _State, z: Array) -> Array:
    """The shapes believed in, averaged, at ``z``; not below 0."""
    weights = state.weights.sum(0)
    top = np.argsort(-weights, kind="stable")[:30]
    mean = shape_values(state.table[:, top], z) @ (weights[top] / weights[top].sum())
    return np.maximum(mean, 0.0)


def _settings(windows: Sequence[_Window], depths: Array, *, screening: bool) -> _Settings:
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
    return _Settings(size.ravel(), variance.ravel(), np.log(np.repeat(prior, len(variances))) + fitted)


def _rise_of_cells(window: _Window, state: _State, row: int) -> Array:
    """How far each cell of the window lies above the minimum, in units of the rise one octave off."""
    if not len(state.weights):
        values = window.found.basis @ window.found.mean
        return (values - values.min()) / float(state.depths[row])
    return _mean_shape(state, window.x - window.centre)


def _covariance(x: Array, rise: Array, depth: float) -> Array:
    """Of a departure of size 1 at ``x``: Matérn 5/2 with a length of one octave, times the rise."""
    away = math.sqrt(5) * np.abs(x[:, None] - x[None, :])
    size = depth * (AT_MINIMUM + rise)
    covariance: Array = (1 + away + away**2 / 3) * np.exp(-away) * np.outer(size, size)
    return covariance


def _fit(window: _Window, rise: Array, depth: float, settings: _Settings, table: Array) -> _Fit:
    """The likelihood of every position and shape, the depth at its best value (never below 0)."""
    basis, mean = window.found.basis, window.found.mean
    values = shape_values(table, window.x[:, None] - window.searched[None, :])  # (n, M, K)
    shape = values.shape[1:]
    contrast = basis.T @ values.reshape(len(window.x), -1)
    departure = basis.T @ _covariance(window.x, rise, depth) @ basis
    found = np.empty((3, len(settings.variance), *shape))
    for row, (size, variance) in enumerate(zip(settings.departure, settings.variance, strict=True)):
        root = np.linalg.cholesky(variance * window.found.spread + size**2 * departure)
        inverse = np.linalg.inv(root)
        data, model = inverse @ mean, inverse @ contrast
        precision = np.einsum("ij,ij->j", model, model)
        product = data @ model
        best = product / precision
        log = -0.5 * float(data @ data) - float(np.log(np.diag(root)).sum())
        log = log + np.where(product > 0, 0.5 * product * best, -100.0)
        for kind, array in enumerate((log, best, precision)):
            found[kind, row] = array.reshape(shape)
    return _Fit(window.searched, *found)


def _combine(windows: Sequence[_Window], fits: Sequence[_Fit], settings: _Settings, state: _State) -> _State:
    """Weights of settings and shapes over all curves; each curve's middle, depth and what range remains."""
    log = settings.log_prior[:, None] + state.log_prior + sum(_peak(fit.log_likelihood) for fit in fits)
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
        depths.append(float((share * np.maximum(fit.depth, 0.0)).sum()))
    usual = max(float(np.median(depths)), 1e-12)
    return replace(
        state,
        weights=weights,
        centres=np.array(centres),
        depths=np.maximum(depths, 1e-3 * usual),
        ranges=ranges,
    )


def _with_variants(
    state: _State,
    windows: Sequence[_Window],
    fits: Sequence[_Fit],
    settings: _Settings,
    rises: Sequence[Array],
    rng: np.random.Generator,
) -> _State:
    """The shapes believed in, and variants of the best of them; ``fits`` are those of the pass before."""
    by_shape = state.weights.sum(0)
    parents = np.argsort(-by_shape, kind="stable")[:NUM_PARENTS]
    tables, priors = [state.table], [state.log_prior]
    for parent in parents[by_shape[parents] > LEAST_PARENT * by_shape.max()]:
        setting = int(state.weights[:, parent].argmax())
        placed = []
        for window, fit, rise, depth in zip(windows, fits, rises, state.depths, strict=True):
            basis = window.found.basis
            covariance = settings.variance[setting] * window.found.spread
            own = settings.departure[setting] ** 2
            covariance = covariance + own * basis.T @ _covariance(window.x, rise, float(depth)) @ basis
            best = int(fit.log_likelihood[setting, :, parent].argmax())
            placed.append(
                Placed(
                    window.x,
                    basis,
                    window.found.mean,
                    np.linalg.inv(covariance),
                    float(fit.searched[best]),
                    max(float(fit.depth[setting, best, parent]), 1e-3 * float(depth)),
                )
            )
        made, log = variants(state.table[:, parent], placed, rng, NUM_VARIANTS)
        tables.append(made)
        priors.append(state.log_prior[parent] + log)
    return replace(
        state,
        table=np.ascontiguousarray(np.concatenate(tables, axis=1)),
        log_prior=np.concatenate(priors),
    )


def _peak(log: Array) -> Array:
    """The maximum over positions (axis 1), between them by a parabola: (H, K) for (H, M, K)."""
    top = np.clip(log.argmax(1), 1, log.shape[1] - 2)[:, None]
    left, here, right = (np.take_along_axis(log, top + way, axis=1)[:, 0] for way in (-1, 0, 1))
    bend = np.maximum(2 * here - left - right, 1e-12)
    inside = (here >= left) & (here >= right)
    return np.where(inside, here + (right - left) ** 2 / (8 * bend), np.maximum(left, right))


def _draw(
    windows: Sequence[_Window],
    fits: Sequence[_Fit],
    settings: _Settings,
    rises: Sequence[Array],
    state: _State,
    rng: np.random.Generator,
    num: int,
) -> Surface:
    picked = rng.choice(state.weights.size, size=num, p=state.weights.ravel())
    setting, shape = np.unravel_index(picked, state.weights.shape)
    variance = float(settings.variance[setting].mean())
    tilts = tilt_draws(
        [window.found for window in windows],
        [window.x - window.centre for window in windows],
        state.depths,
        variance,
        rng,
        num,
    )
    return Surface(
        tuple(
            _draw_curve(window, fit, settings, rise, float(depth), tilt, setting, state.table, shape, rng)
            for window, fit, rise, depth, tilt in zip(windows, fits, rises, state.depths, tilts, strict=True)
        )
    )


def _draw_curve(
    window: _Window,
    fit: _Fit,
    settings: _Settings,
    rise: Array,
    depth: float,
    tilt: Array,
    setting: Indices,
    table: Array,
    shape: Indices,
    rng: np.random.Generator,
) -> CurveDraws:
    num, x, found = len(setting), window.x, window.found
    log_likelihood = fit.log_likelihood[setting, :, shape]  # (D, M)
    share = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True)).cumsum(1)
    place = np.minimum((share < share[:, -1:] * rng.random((num, 1))).sum(1), len(window.searched) - 1)
    step = window.searched[1] - window.searched[0]
    middle = window.searched[place] + (rng.random(num) - 0.5) * step
    best, precision = fit.depth[setting, place, shape], fit.precision[setting, place, shape]
    depths = np.maximum(best + rng.standard_normal(num) / np.sqrt(precision), 0.05 * np.abs(best))
    low = max(min(x[0], window.searched[0]) - 0.5, window.curve.wall_low)
    high = min(max(x[-1], window.searched[-1]) + 0.5, window.curve.wall_high)
    grid = np.linspace(low, high, math.ceil((high - low) / GRID) + 1)
    departure = _departures(window, grid, settings, rise, depth, setting, depths, table, shape, middle, rng)
    departure += depth * tilt * (grid - window.centre)[:, None]
    where, lowest = _minimum(grid, departure, depths, table, shape, middle)
    values = depths * shape_of_draw(table, grid[None, :] - middle[:, None], shape).T + departure
    return CurveDraws(where, grid, np.maximum(values - lowest, 0.0), window.searched, log_likelihood.T)


def _departures(
    window: _Window,
    grid: Array,
    settings: _Settings,
    rise: Array,
    depth: float,
    setting: Indices,
    depths: Array,
    table: Array,
    shape: Indices,
    middle: Array,
    rng: np.random.Generator,
) -> Array:
    """Draws of the smooth departure on ``grid`` given the cells: (G, D).

    A draw from the prior is corrected by what it misses of the data (Matheron's rule).
    """
    num, n, x, basis = len(setting), len(window.x), window.x, window.found.basis
    everywhere = np.concatenate([x, grid])
    covariance = _covariance(everywhere, np.concatenate([rise, np.interp(grid, x, rise)]), depth)
    jitter = 1e-8 * np.diag(np.diag(covariance))
    prior = np.linalg.cholesky(covariance + jitter) @ rng.standard_normal((len(everywhere), num))
    noise = np.linalg.cholesky(window.found.spread) @ rng.standard_normal((n - 1, num))
    noise *= np.sqrt(settings.variance[setting])
    model = basis.T @ shape_of_draw(table, x[None, :] - middle[:, None], shape).T
    missed = window.found.mean[:, None] - depths * model - noise
    departure = np.zeros((len(grid), num))
    for row, (size, variance) in enumerate(zip(settings.departure, settings.variance, strict=True)):
        mine = setting == row
        if size and mine.any():
            total = variance * window.found.spread + size**2 * basis.T @ covariance[:n, :n] @ basis
            own = size * prior[:, mine]
            weights = np.linalg.solve(total, missed[:, mine] - basis.T @ own[:n])
            departure[:, mine] = own[n:] + size**2 * covariance[n:, :n] @ (basis @ weights)
    return departure


def _minimum(
    grid: Array, departure: Array, depths: Array, table: Array, shape: Indices, middle: Array
) -> tuple[Array, Array]:
    """Position and value of each draw's minimum: (D,), (D,); within 1/128 octave, at a kink exactly."""
    num, step = len(depths), grid[1] - grid[0]
    values = depths * shape_of_draw(table, grid[None, :] - middle[:, None], shape).T + departure
    nearest = np.clip(np.argmin(values, axis=0), 1, len(grid) - 2)
    draws = np.arange(num)
    left, here, right = (departure[nearest + way, draws] for way in (-1, 0, 1))
    slope, bend = (right - left) / 2, (left + right) / 2 - here
    fine = np.broadcast_to(np.linspace(-1, 1, 33), (num, 33))
    own = np.clip((middle - grid[nearest]) / step, -1, 1)[:, None]
    offset = np.concatenate([fine, own], axis=1)  # in steps of the grid
    at = grid[nearest][:, None] + offset * step
    fine_values = depths[:, None] * shape_of_draw(table, at - middle[:, None], shape)
    fine_values += here[:, None] + slope[:, None] * offset + bend[:, None] * offset**2
    lowest = np.argmin(fine_values, axis=1)
    return at[draws, lowest], fine_values[draws, lowest]
