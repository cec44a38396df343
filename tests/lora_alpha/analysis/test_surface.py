"""Joint draws of curves: planted minima, what must not matter, and curves that say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.basin_fit import Settings, Window, _fit, _peak, departure_covariance
from lora_alpha.analysis.curves import Curve
from lora_alpha.analysis.noise import contrasts
from lora_alpha.analysis.shapes import shape_table
from lora_alpha.analysis.surface import NUM_DRAWS, fit_surface

X = np.arange(3.0, 11.0)
MINIMA = (6.3, 6.8, 5.9)
Array = np.ndarray


def ends(where: Array) -> Array:
    """Interval and median."""
    return np.quantile(where, [0.025, 0.5, 0.975])


def noisy(num_seeds: int = 3, *, noise: float = 0.02) -> list[Curve]:
    rng = np.random.default_rng(0)
    return [
        Curve(X, 0.1 * (X - m) ** 2 + rng.normal(0, noise, (num_seeds, 8)) + rng.normal(0, 1, (num_seeds, 1)))
        for m in MINIMA
    ]


def test_departures_have_the_covariance_of_the_formula() -> None:
    x, rise = np.array([0.0, 0.5, 2.0]), np.array([3.0, 0.0, 1.0])
    found = departure_covariance(x, rise, 2.0)
    for i in range(3):
        for j in range(3):
            d = math.sqrt(5) * abs(x[i] - x[j])
            size = 2.0 * (0.1 + rise[i]) * 2.0 * (0.1 + rise[j])
            assert found[i, j] == pytest.approx(size * (1 + d + d * d / 3) * math.exp(-d))


def test_likelihood_is_that_of_a_multivariate_normal_at_the_best_depth() -> None:
    rng = np.random.default_rng(3)
    y = 0.3 * (X - 6.2) ** 2 + rng.normal(0, 0.05, (3, 8))
    y[1, 2] = np.nan
    searched, rise, table = np.array([2.0, 6.0, 6.5]), np.abs(X - 6), shape_table()[:, [0, 30, 70]]
    window = Window(Curve(X, y), X, contrasts(y), 6.0, searched)
    settings = Settings(np.array([0.0, 0.2]), np.array([0.002, 0.01]), np.zeros(2))
    fit = _fit(window, rise, 0.3, settings, table)
    z = np.arange(-14, 14 + 1 / 128, 1 / 64)
    basis, mean = window.found.basis, window.found.mean
    departure = basis.T @ departure_covariance(X, rise, 0.3) @ basis
    constant = []
    for h in range(2):
        total = settings.variance[h] * window.found.spread + settings.departure[h] ** 2 * departure
        for m in range(3):
            for k in range(3):
                model = basis.T @ np.interp(X - searched[m], z, table[:, k])
                weighted = np.linalg.solve(total, model)
                depth = (weighted @ mean) / (weighted @ model)
                assert fit.depth[h, m, k] == pytest.approx(depth, rel=1e-6)
                assert fit.precision[h, m, k] == pytest.approx(weighted @ model, rel=1e-6)
                plain = stats.multivariate_normal.logpdf(mean, max(depth, 0) * model, total)
                constant.append(fit.log_likelihood[h, m, k] - plain)
    # The likelihood leaves out what is the same for all.
    np.testing.assert_allclose(constant, 7 / 2 * math.log(2 * math.pi), rtol=1e-6)
    assert (fit.depth < 0).any()


def test_a_peak_between_positions_is_that_of_the_parabola() -> None:
    at = np.arange(6.0)
    log = np.stack([2 - 0.7 * (at - 2.3) ** 2, -at, at])[None].transpose(0, 2, 1)
    np.testing.assert_allclose(_peak(log), [[2.0, 0.0, 5.0]])


@pytest.mark.parametrize(
    ("rise", "tolerance"),
    [(np.square, 0.02), (np.abs, 0.02), (lambda z: np.where(z > 0, 2, 1) * z**2, 0.03)],
    ids=["parabola", "kink", "asymmetric"],
)
def test_without_noise_the_minimum_is_found(rise: Callable[[Array], Array], tolerance: float) -> None:
    surface = fit_surface([Curve(X, 0.1 * rise(X - m)[None]) for m in MINIMA])
    for curve, truth in zip(surface.curves, MINIMA, strict=True):
        low, middle, high = ends(curve.where)
        assert middle == pytest.approx(truth, abs=tolerance)
        assert low < high < low + 0.2
        assert curve.where.shape == (NUM_DRAWS,)


def test_excess_of_a_parabola_is_its_square_within_the_window_and_beyond() -> None:
    curve = fit_surface([Curve(X, 0.1 * (X - m) ** 2 + np.zeros((2, 1))) for m in MINIMA]).curves[0]
    for x in (3.0, 4.0, 5.0, 5.7, 6.3, 7.0, 8.4, 10.0):
        assert np.median(curve.excess(x)) == pytest.approx(0.1 * (x - 6.3) ** 2, rel=0.05, abs=0.003)
        assert (curve.excess(x) >= 0).all()
    assert np.median(curve.reaches(np.full(NUM_DRAWS, 0.1), way=1)) == pytest.approx(7.3, abs=0.05)
    assert np.median(curve.reaches(np.full(NUM_DRAWS, 0.1), way=-1)) == pytest.approx(5.3, abs=0.05)


def test_what_must_not_matter_does_not() -> None:
    curves = noisy()
    expected = fit_surface(curves).curves
    for found, same in zip(fit_surface(curves).curves, expected, strict=True):
        np.testing.assert_array_equal(found.where, same.where)
        np.testing.assert_array_equal(found.rise, same.rise)
    level = np.array([[4.0], [-2.0], [1.0]])
    changes: list[Callable[[Array], Array]] = [
        lambda y: y[[2, 0, 1]],
        lambda y: y + level,
        lambda y: 1e-6 * y,
        lambda y: 1e6 * y,
    ]
    for change in changes:
        other = fit_surface([Curve(c.x, change(c.y)) for c in curves]).curves
        for found, same in zip(other, expected, strict=True):
            np.testing.assert_allclose(ends(found.where), ends(same.where), atol=0.005)


def test_the_tilts_of_seeds_widen_what_is_known() -> None:
    rng = np.random.default_rng(5)
    plain = [Curve(X, c.y[:3]) for c in noisy(noise=0.005)]
    tilt = 0.1 * rng.standard_normal((3, 1))
    tilted = [Curve(X, c.y + (tilt - tilt.mean()) * (X - m)) for c, m in zip(plain, MINIMA, strict=True)]
    before, after = fit_surface(plain).curves, fit_surface(tilted).curves
    # A tilt of 0.1 an octave moves the minimum of 0.1·z² by half an octave, the mean of three seeds by less.
    moved = float(tilt.std(ddof=1)) / math.sqrt(3) / 0.2
    assert before[0].where.std() < 0.3 * moved
    assert after[0].where.std() > 1.8 * moved
    # All ranks share the seeds: their optima move alike.
    assert np.corrcoef([curve.where for curve in after])[0, 1] > 0.85


def test_far_from_the_minimum_a_curve_is_what_was_measured() -> None:
    y = 0.1 * (X - 6.3) ** 2 + np.zeros((3, 1))
    y[:, 0] = 5.0
    y[:, -1] = 0.75
    curve = fit_surface([Curve(X, y), *noisy()[1:]]).curves[0]
    assert np.median(curve.excess(3.0)) == pytest.approx(5.0, abs=0.05)
    assert np.median(curve.excess(10.0)) == pytest.approx(0.75, abs=0.05)


def test_missing_runs_three_cells_and_one_seed_are_no_obstacle() -> None:
    curves = noisy()
    curves[0].y[0, 3] = curves[0].y[2, 4] = np.nan
    mixed = [*curves, Curve(X[2:5], curves[0].y[:, 2:5])]
    for curve, truth in zip(fit_surface(mixed).curves[:3], MINIMA, strict=True):
        low, middle, high = ends(curve.where)
        assert low < truth < high
        assert middle == pytest.approx(truth, abs=0.15)
    (alone,) = fit_surface([noisy(1)[0]]).curves
    assert np.median(alone.where) == pytest.approx(6.3, abs=0.3)
    (three,) = fit_surface([Curve(np.array([3.0, 4.0, 5.0]), np.array([[1.0, 0.5, 1.2]]))]).curves
    assert 3 < np.median(three.where) < 5
    assert np.ptp(ends(three.where)) > 0.5


@pytest.mark.parametrize(
    ("y", "width"),
    [([3, 2, 1, 1, 1, 1, 2, 3], 1.5), ([3, 2, 1, 0, 0, 1, 2, 3], 0.05), ([1] * 8, 6), ([0] * 8, 6)],
    ids=["plateau", "tie", "flat", "zero"],
)
def test_equal_costs_leave_the_minimum_open(y: list[float], width: float) -> None:
    (curve,) = fit_surface([Curve(X, np.array([y], dtype=float))]).curves
    assert np.isfinite(curve.rise).all()
    assert np.ptp(ends(curve.where)) >= width


def test_no_minimum_lies_beyond_a_wall() -> None:
    fall = (0.1 * (X - 11) ** 2)[None]
    (free,) = fit_surface([Curve(X, fall)]).curves
    (high,) = fit_surface([Curve(X, fall, wall_high=10.5)]).curves
    (low,) = fit_surface([Curve(-X[::-1], fall[:, ::-1], wall_low=-10.5)]).curves
    assert np.median(free.where) == pytest.approx(11, abs=0.5)
    assert high.where.max() <= 10.5
    assert low.where.min() >= -10.5
    assert high.grid[-1] <= 10.5
    assert low.grid[0] >= -10.5


def test_a_noisy_curve_that_falls_to_its_end_leaves_the_minimum_open() -> None:
    fall = 0.1 * (X - 11) ** 2 + np.random.default_rng(0).normal(0, 0.02, (3, 8))
    (curve,) = fit_surface([Curve(X, fall)]).curves
    assert ends(curve.where)[2] > 10.5


def test_more_cells_never_hurt() -> None:
    rng = np.random.default_rng(8)
    errors = np.zeros((2, 2))
    for row, step in enumerate((1.0, 0.5)):
        x = np.arange(3.0, 10.01, step)
        for replicate in range(2):
            minima = rng.uniform(5.5, 7.5, 3)
            curves = [Curve(x, 0.1 * (x - m) ** 2 + rng.normal(0, 0.03, (3, len(x)))) for m in minima]
            found = [np.median(curve.where) for curve in fit_surface(curves).curves]
            errors[row, replicate] = np.abs(found - minima).mean()
    assert errors[1].mean() <= errors[0].mean() + 0.03


def test_an_asymmetric_basin_is_covered() -> None:
    """The parabola through the best three cells lies a tenth of an octave off."""
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(2):
        minima = rng.uniform(5.5, 7.5, 3)
        curves = [
            Curve(X, np.where(m < X, 0.4, 0.1) * (X - m) ** 2 + rng.normal(0, 0.01, (3, 8))) for m in minima
        ]
        for curve, truth in zip(fit_surface(curves).curves, minima, strict=True):
            low, _, high = ends(curve.where)
            covered += bool(low <= truth <= high)
    assert covered >= 5


@pytest.mark.parametrize("seed", range(4))
def test_degrees_of_freedom_may_pass_the_limit_between_two_passes(seed: int) -> None:
    """Nine cells in the window know the variance well enough, eight do not; it follows the minimum."""
    x = np.arange(16) * 0.75
    noise = np.random.default_rng(seed).normal(0, 0.05, (5, 16))
    (curve,) = fit_surface([Curve(x, 0.05 * (x - 5.6) ** 2 + noise)]).curves
    assert abs(np.median(curve.where) - 5.6) < 1
