import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from lora_alpha.curvature.lanczos import basis_bytes, lanczos
from lora_alpha.errors import ProbeError


class MatrixOperator:
    def __init__(self, matrix):
        self.matrix, self.dim = matrix, len(matrix)
        self.dtype, self.device = matrix.dtype, matrix.device
        self.num_products = 0

    def matvec(self, vector_P):
        self.num_products += 1
        return self.matrix @ vector_P


def matrix_with(values, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return MatrixOperator((q * torch.as_tensor(values, dtype=torch.float64) @ q.T).to(dtype))


def finish(generator):
    """Run a generator to its end: (its yields, its result)."""
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            return seen, stop.value


def spiked(num_bulk=500):
    return np.r_[[50.0, 30.0, 29.5, 12.0], np.random.default_rng(0).normal(0, 1, num_bulk), [-40.0, -7.0]]


@pytest.mark.parametrize("basis_size", [None, 30])
def test_top_and_bottom_are_signed_and_ordered(basis_size):
    operator = matrix_with(spiked())
    _, pairs = finish(lanczos(operator, num_top=4, num_bottom=2, tolerance=1e-10, basis_size=basis_size))
    np.testing.assert_allclose(pairs.top, [50, 30, 29.5, 12], atol=1e-9)
    np.testing.assert_allclose(pairs.bottom, [-40, -7], atol=1e-9)
    assert pairs.converged
    assert pairs.num_products == operator.num_products


def test_each_reported_value_is_within_its_residual_of_an_eigenvalue():
    values = spiked()
    for seed in range(4):
        _, pairs = finish(lanczos(matrix_with(values), num_top=3, num_bottom=1, seed=seed))
        found = np.r_[pairs.top, pairs.bottom]
        bounds = np.r_[pairs.top_residuals, pairs.bottom_residuals]
        assert (np.abs(values[:, None] - found).min(axis=0) <= bounds + 1e-12).all()


def test_agrees_with_scipy_on_the_largest_algebraic_values():
    operator = matrix_with(spiked())
    reference = LinearOperator(
        (operator.dim,) * 2,
        dtype=np.float64,
        matvec=lambda v: (operator.matrix @ torch.from_numpy(v)).numpy(),
    )
    expected = np.sort(eigsh(reference, k=6, which="LA", tol=1e-12, v0=np.ones(operator.dim))[0])[::-1]
    _, pairs = finish(lanczos(operator, num_top=6, tolerance=1e-10))
    np.testing.assert_allclose(pairs.top, expected, rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_every_copy_of_a_multiple_eigenvalue_is_found(seed):
    operator = matrix_with(np.r_[[9.0, 9.0, 4.0], np.linspace(-1, 1, 200)])
    _, pairs = finish(lanczos(operator, num_top=3, num_bottom=1, seed=seed))
    np.testing.assert_allclose(pairs.top, [9, 9, 4], atol=1e-3)


def test_trusting_the_residuals_alone_misses_a_copy():
    """The reason for ``confirm_products``: every residual passes and 4 is taken for the second value."""
    operator = matrix_with(np.r_[[9.0, 9.0, 4.0], np.linspace(-1, 1, 200)])
    _, pairs = finish(lanczos(operator, num_top=2, confirm_products=0))
    assert pairs.converged
    np.testing.assert_allclose(pairs.top, [9, 4], atol=1e-2)


def test_small_operators_are_solved_completely():
    operator = matrix_with([3.0, 3.0, -1.0])
    _, pairs = finish(lanczos(operator, num_top=3))
    np.testing.assert_allclose(pairs.top, [3, 3, -1], atol=1e-12)
    assert pairs.converged
    zero = MatrixOperator(torch.zeros(5, 5, dtype=torch.float64))
    _, pairs = finish(lanczos(zero, num_top=1, num_bottom=1))
    assert (pairs.top[0], pairs.bottom[0], pairs.converged) == (0.0, 0.0, True)


def test_running_out_of_products_is_said_not_hidden():
    seen, pairs = finish(lanczos(matrix_with(spiked()), num_top=10, tolerance=1e-10, max_products=14))
    assert not pairs.converged
    assert pairs.num_products == 14 == len(seen)
    assert pairs.top_residuals.max() > 1e-3


def test_progress_after_every_product_lets_it_be_stopped():
    operator = matrix_with(spiked())
    solver = lanczos(operator, num_top=4)
    products = [next(solver).products for _ in range(5)]
    solver.close()
    assert products == [1, 2, 3, 4, 5]
    assert operator.num_products == 5


def test_vectors_are_eigenvectors():
    operator = matrix_with(spiked())
    _, pairs = finish(lanczos(operator, num_top=3, tolerance=1e-9, keep_vectors=True))
    image = pairs.top_vectors @ operator.matrix
    torch.testing.assert_close(
        image, torch.from_numpy(pairs.top.copy())[:, None] * pairs.top_vectors, atol=1e-6, rtol=0
    )


def test_float32_reaches_the_default_tolerance():
    operator = matrix_with(spiked(), dtype=torch.float32)
    _, pairs = finish(lanczos(operator, num_top=4, num_bottom=2))
    np.testing.assert_allclose(pairs.top, [50, 30, 29.5, 12], rtol=1e-5)


def test_impossible_requests_are_refused():
    operator = matrix_with([1.0, 2.0, 3.0])
    with pytest.raises(ProbeError, match="4 eigenvalues of a Hessian with 3"):
        next(lanczos(operator, num_top=4))
    with pytest.raises(ProbeError, match="at least 7 needed"):
        next(lanczos(matrix_with(spiked()), num_top=4, basis_size=5))
    broken = MatrixOperator(torch.full((4, 4), torch.nan, dtype=torch.float64))
    with pytest.raises(ProbeError, match="not finite"):
        next(lanczos(broken, num_top=1))


def test_basis_bytes_follow_iterations_times_parameters():
    assert basis_bytes(1000, num_vectors=60, dtype=torch.float32) == 64 * 1000 * 4
    assert basis_bytes(10, num_vectors=60, dtype=torch.float64) == 14 * 10 * 8
