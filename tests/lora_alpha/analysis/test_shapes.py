"""The candidate shapes, and variants of them that curves have in common."""

from __future__ import annotations

import numpy as np
import pytest

from lora_alpha.analysis.noise import contrasts
from lora_alpha.analysis.shapes import REACH, STEP, positions, shape_of_draw, shape_table, shape_values
from lora_alpha.analysis.variants import AT_MINIMUM, Placed, variants

Z = positions()
X = np.arange(-3.0, 3.6, 0.5)


def test_every_shape_is_lowest_at_0_and_rises_by_1_in_an_octave() -> None:
    table = shape_table()
    middle, octave = len(Z) // 2, round(1 / STEP)
    assert Z[middle] == 0
    assert table.min() == 0
    np.testing.assert_allclose(table[middle], 0, atol=1e-3)
    rises = np.minimum(table[middle - octave], table[middle + octave])
    np.testing.assert_allclose(rises, 1, rtol=1e-12)
    assert (np.diff(table[middle:], axis=0) >= -1e-12).all()
    assert (np.diff(table[: middle + 1], axis=0) <= 1e-12).all()
    np.testing.assert_allclose(np.abs(table - np.minimum(Z**2, 1e5)[:, None]).max(0).min(), 0, atol=1e-9)


def test_shapes_between_positions_are_interpolated() -> None:
    table = shape_table()
    z = np.random.default_rng(0).uniform(-REACH, REACH, (5, 7))
    values = shape_values(table, z)
    for column in (0, 50, table.shape[1] - 1):
        np.testing.assert_allclose(values[..., column], np.interp(z, Z, table[:, column]), rtol=1e-9)
    shapes = np.array([3, 0, 99, 7, 3])
    np.testing.assert_array_equal(
        shape_of_draw(table, z, shapes), [values[row, :, shape] for row, shape in enumerate(shapes)]
    )


def test_beyond_the_table_a_shape_goes_on_flat() -> None:
    far = shape_values(shape_table(), np.array([-REACH - 5, -REACH, REACH, REACH + 5]))
    np.testing.assert_array_equal(far[0], far[1])
    np.testing.assert_array_equal(far[2], far[3])


def placed(truth: np.ndarray, noise: float, *, num: int = 6) -> list[Placed]:
    """Curves of a shape at known places, half an octave between cells."""
    rng = np.random.default_rng(1)
    curves = []
    for middle in rng.uniform(-0.5, 0.5, num):
        y = 2 * np.interp(X - middle, Z, truth) + rng.normal(0, noise, X.shape)
        found = contrasts(y[None])
        precision = np.linalg.inv(noise**2 * found.spread)
        curves.append(Placed(X, found.basis, found.mean, precision, middle, 2.0))
    return curves


def test_variants_of_the_true_shape_are_that_shape() -> None:
    parent = Z**2
    made, log = variants(parent, placed(parent, 0.01), np.random.default_rng(2), 200)
    near = np.abs(Z) <= 2
    # Depth and a variant that scales the shape are one thing: compared at one octave.
    mean = made.mean(1) / made.mean(1)[len(Z) // 2 + round(1 / STEP)]
    np.testing.assert_allclose(mean[near], parent[near], rtol=0.03, atol=0.03)
    assert made.shape == (len(Z), 200)
    assert np.isfinite(log).all()


def test_a_change_of_shape_that_all_curves_have_is_found() -> None:
    parent = Z**2
    truth = parent + (parent + AT_MINIMUM) * 0.2 * np.tanh(Z)
    curves = placed(truth, 0.05)

    def missed(shape: np.ndarray) -> float:
        """Squares left by the best depth at the best place, in units of the noise."""
        total = 0.0
        for curve in curves:
            best = np.inf
            for middle in np.arange(curve.middle - 0.3, curve.middle + 0.3, 1 / 64):
                model = curve.basis.T @ np.interp(X - middle, Z, shape)
                depth = (model @ curve.precision @ curve.mean) / (model @ curve.precision @ model)
                left = curve.mean - depth * model
                best = min(best, left @ curve.precision @ left)
            total += best
        return total

    made, _ = variants(parent, curves, np.random.default_rng(2), 100)
    assert missed(made.mean(1)) < 0.1 * missed(parent)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_variant_does_not_depend_on_the_unit(unit: float) -> None:
    curves = placed(Z**2, 0.01)
    scaled = [
        Placed(c.x, c.basis, unit * c.mean, c.precision / unit**2, c.middle, unit * c.depth) for c in curves
    ]
    made, log = variants(Z**2, curves, np.random.default_rng(2), 3)
    same, same_log = variants(Z**2, scaled, np.random.default_rng(2), 3)
    np.testing.assert_allclose(same, made, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(same_log, log, atol=1e-6)
