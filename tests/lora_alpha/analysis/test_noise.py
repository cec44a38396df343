"""Contrasts against plain least squares, tilts against planted ones."""

from __future__ import annotations

import numpy as np
import pytest

from lora_alpha.analysis.noise import contrasts, tilt_draws

X = np.arange(8.0)


def costs(rng: np.random.Generator, num_seeds: int, missing: list[tuple[int, int]]) -> np.ndarray:
    y = (X - 3.3) ** 2 + rng.normal(0, 1, (num_seeds, 1)) + rng.normal(0, 0.3, (num_seeds, len(X)))
    for run in missing:
        y[run] = np.nan
    return y


@pytest.mark.parametrize("missing", [[], [(0, 2)], [(0, 0), (1, 5), (1, 6), (3, 7)]])
def test_contrasts_are_least_squares_of_cells_and_levels(missing: list[tuple[int, int]]) -> None:
    y = costs(np.random.default_rng(1), 4, missing)
    seeds, cells = np.nonzero(np.isfinite(y))
    design = np.concatenate([np.eye(8)[cells], np.eye(4)[seeds]], axis=1)
    theta, _, rank, _ = np.linalg.lstsq(design, y[seeds, cells], rcond=None)
    left = y[seeds, cells] - design @ theta
    found = contrasts(y)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(found.basis.sum(0), 0, atol=1e-12)
    np.testing.assert_allclose(found.mean, found.basis.T @ theta[:8], atol=1e-7)
    covariance = np.linalg.pinv(design.T @ design)[:8, :8]
    np.testing.assert_allclose(found.spread, found.basis.T @ covariance @ found.basis, atol=1e-7)
    np.testing.assert_allclose(found.residual[seeds, cells], left, atol=1e-7)
    np.testing.assert_array_equal(np.isnan(found.residual), np.isnan(y))
    assert found.squares == pytest.approx(float((left**2).sum()))
    assert found.freedom == len(seeds) - rank


def test_levels_of_seeds_change_nothing() -> None:
    y = costs(np.random.default_rng(2), 3, [(2, 4)])
    plain, moved = contrasts(y), contrasts(y + np.array([[8.0], [-64.0], [0.5]]))
    np.testing.assert_allclose(moved.mean, plain.mean, atol=1e-10)
    np.testing.assert_allclose(moved.residual, plain.residual, atol=1e-10)
    np.testing.assert_array_equal(moved.spread, plain.spread)


def tilts_of(curves: list[np.ndarray], num: int = 4000) -> np.ndarray:
    found = [contrasts(y) for y in curves]
    z = [X - X.mean()] * len(curves)
    return tilt_draws(found, z, np.ones(len(curves)), 0.01, np.random.default_rng(0), num)


def tilted(rng: np.random.Generator, slopes: np.ndarray) -> list[np.ndarray]:
    """Curves whose seeds are tilted by ``slopes`` (R, S), with noise of variance 0.01."""
    return [
        own[:, None] * (X - X.mean()) + (X - 3) ** 2 + rng.normal(0, 0.1, (len(own), 8)) for own in slopes
    ]


def test_one_seed_shows_no_tilt() -> None:
    assert not tilts_of(tilted(np.random.default_rng(0), np.ones((3, 1)))).any()


def test_tilts_of_planted_variance_are_found() -> None:
    rng = np.random.default_rng(3)
    own = tilts_of(tilted(rng, rng.normal(0, 0.5, (6, 5))))
    assert 0.6 < own.std() / (0.5 / np.sqrt(5)) < 1.6
    assert abs(np.corrcoef(own)[0, 1:]).max() < 0.5
    none = tilts_of(tilted(rng, np.zeros((6, 5))))
    assert none.std() < 0.1 * own.std()


def test_a_tilt_that_seeds_share_is_common_to_all_curves() -> None:
    rng = np.random.default_rng(4)
    shared = np.tile(rng.normal(0, 0.5, 5), (6, 1))
    draws = tilts_of(tilted(rng, shared))
    assert np.corrcoef(draws).min() > 0.95
    assert 0.5 < draws.std() / (shared[0].std(ddof=1) / np.sqrt(5)) < 2


def test_too_few_runs_of_a_seed_show_no_tilt() -> None:
    y = tilted(np.random.default_rng(5), np.ones((1, 2)))[0]
    y[1, 2:] = np.nan
    assert not tilts_of([y]).any()
