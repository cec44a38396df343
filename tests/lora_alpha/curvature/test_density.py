import numpy as np
import pytest
import torch

from lora_alpha.curvature.density import spectral_density
from lora_alpha.errors import ProbeError


class DiagonalOperator:
    """A diagonal matrix rotated by reflections, so that ±1 vectors are not special."""

    def __init__(self, values, *, seed=0):
        self.values, self.dim = torch.as_tensor(values, dtype=torch.float64), len(values)
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self.mirror = torch.randn(
            self.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        self.mirror /= self.mirror.norm()

    def reflect(self, vector_P):
        return vector_P - 2 * self.mirror * (self.mirror @ vector_P)

    def matvec(self, vector_P):
        return self.reflect(self.values * self.reflect(vector_P))


def finish(generator):
    count = 0
    while True:
        try:
            next(generator)
            count += 1
        except StopIteration as stop:
            return count, stop.value


VALUES = np.r_[np.random.default_rng(0).normal(0, 1, 800), [30.0] * 4, [-20.0] * 2]


def test_moments_are_within_their_stated_error():
    _, found = finish(spectral_density(DiagonalOperator(VALUES), num_vectors=30, iterations=12))
    exact = np.array([(VALUES**power).mean() for power in range(1, 5)])
    deviations = np.abs(found.moments - exact) / found.moment_errors
    assert (deviations < 4).all()
    assert (found.moment_errors < 0.5 * np.abs(exact) + 0.05).all()


def test_stated_errors_cover_the_truth_as_often_as_they_should():
    exact = (VALUES**2).mean()
    inside = 0
    for seed in range(60):
        _, found = finish(spectral_density(DiagonalOperator(VALUES), num_vectors=10, iterations=4, seed=seed))
        inside += abs(found.moments[1] - exact) <= 2.262 * found.moment_errors[1]  # t, 9 degrees, 95 %
    assert inside >= 50  # 57 expected; fewer than 50 has probability below 1 %


def test_density_integrates_to_one_and_shows_bulk_and_outliers():
    _, found = finish(spectral_density(DiagonalOperator(VALUES), num_vectors=8, iterations=40))
    step = found.grid[1] - found.grid[0]
    assert found.density.sum() * step == pytest.approx(1, abs=1e-3)
    near_top = found.density[(found.grid > 27) & (found.grid < 33)].sum() * step
    assert near_top == pytest.approx(4 / len(VALUES), abs=4 * np.sqrt(8) / len(VALUES))
    assert (found.density_error >= 0).all()
    assert all(w.sum() == pytest.approx(1, abs=1e-12) for w in found.weights)


def test_density_of_a_small_matrix_is_exact_in_its_nodes():
    _, found = finish(spectral_density(DiagonalOperator([1.0, 2.0, 5.0]), num_vectors=2, iterations=60))
    for nodes in found.nodes:
        np.testing.assert_allclose(nodes, [1, 2, 5], atol=1e-12)


def test_a_spectrum_of_one_value_is_drawn():
    _, found = finish(spectral_density(DiagonalOperator([2.0, 2.0, 2.0]), num_vectors=2, iterations=3))
    assert found.moments.tolist() == pytest.approx([2, 4, 8, 16])
    assert np.isfinite(found.density).all()


def test_progress_counts_every_product():
    count, found = finish(spectral_density(DiagonalOperator(VALUES), num_vectors=2, iterations=7))
    assert count == found.num_products == 14


def test_too_few_vectors_are_refused():
    with pytest.raises(ProbeError, match="at least"):
        next(spectral_density(DiagonalOperator(VALUES), num_vectors=1))
