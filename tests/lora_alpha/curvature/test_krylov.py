import numpy as np
import torch

from lora_alpha.curvature.krylov import KrylovSpace


class MatrixOperator:
    """A dense symmetric matrix as an operator."""

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


def grown(operator, count, *, capacity=None):
    space = KrylovSpace(operator, capacity=capacity or count)
    space.push(torch.randn(operator.dim, generator=torch.Generator().manual_seed(1)).to(operator.dtype))
    for _ in range(count):
        assert space.expand()
    return space


def residuals_by_hand(space, operator, pairs):
    vectors = space.vectors(pairs.coefficients_MM)
    values = torch.from_numpy(pairs.values_M)[:, None]
    return (vectors @ operator.matrix - values * vectors).norm(dim=1).numpy()


def test_basis_stays_orthonormal_long_after_the_extremes_have_converged():
    operator = matrix_with(np.r_[1e6, -1e5, np.linspace(0, 1, 198)])
    space = grown(operator, 120)
    vectors = space.vectors(np.eye(120))
    assert float((vectors @ vectors.T - torch.eye(120)).abs().max()) < 1e-14


def test_residuals_are_those_of_the_ritz_vectors():
    operator = matrix_with(np.linspace(-1, 3, 60))
    space = grown(operator, 15)
    pairs = space.ritz()
    np.testing.assert_allclose(pairs.residuals_M, residuals_by_hand(space, operator, pairs), atol=1e-13)


def test_residuals_stay_true_after_a_second_direction_and_a_restart():
    operator = matrix_with(np.linspace(-1, 3, 60))
    space = grown(operator, 10, capacity=30)
    space.push(torch.randn(60, generator=torch.Generator().manual_seed(2)))
    for _ in range(8):
        space.expand()
    pairs = space.ritz()
    np.testing.assert_allclose(pairs.residuals_M, residuals_by_hand(space, operator, pairs), atol=1e-13)
    space.compress(pairs, np.array([0, 1, 15, 16, 17]))
    assert space.size == 5
    for _ in range(6):
        space.expand()
    pairs = space.ritz()
    np.testing.assert_allclose(pairs.residuals_M, residuals_by_hand(space, operator, pairs), atol=1e-13)


def test_an_invariant_space_ends_and_a_new_direction_goes_on():
    operator = matrix_with([5.0] * 10 + [1.0] * 10)
    space = KrylovSpace(operator, capacity=20)
    space.push(torch.ones(20))
    assert [space.expand(), space.expand(), space.expand()] == [True, True, False]
    space.push(torch.randn(20, generator=torch.Generator().manual_seed(3)))
    assert [space.expand(), space.expand(), space.expand()] == [True, True, False]
    np.testing.assert_allclose(space.ritz().values_M, [1, 1, 5, 5], atol=1e-12)
