import numpy as np
import pytest
import torch

from lora_alpha.curvature.trace import hutchinson_trace
from lora_alpha.errors import ProbeError


class MatrixOperator:
    def __init__(self, matrix):
        self.matrix, self.dim = matrix, len(matrix)
        self.dtype, self.device = matrix.dtype, matrix.device

    def matvec(self, vector_P):
        return self.matrix @ vector_P

    def matmat(self, vectors_KP):
        return vectors_KP @ self.matrix


def symmetric(size=120):
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return MatrixOperator((square + square.T) / 2 + torch.eye(size, dtype=torch.float64))


def finish(generator):
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            return seen, stop.value


def test_trace_and_norm_are_within_their_stated_error():
    operator = symmetric()
    _, found = finish(hutchinson_trace(operator, max_products=100, relative_error=0))
    assert abs(found.trace - float(operator.matrix.trace())) < 4 * found.trace_error
    assert abs(found.squared_norm - float(operator.matrix.square().sum())) < 4 * found.squared_norm_error


def test_stated_error_has_the_known_variance_of_rademacher_vectors():
    matrix = symmetric().matrix
    variance = 2 * float(matrix.square().sum() - matrix.diagonal().square().sum())
    _, found = finish(hutchinson_trace(MatrixOperator(matrix), max_products=400, relative_error=0))
    assert found.trace_error == pytest.approx(np.sqrt(variance / 400), rel=0.15)


def test_blocks_of_vectors_give_the_estimate_of_single_ones():
    seen, together = finish(hutchinson_trace(symmetric(), max_products=50, relative_error=0, block=4))
    _, single = finish(hutchinson_trace(symmetric(), max_products=50, relative_error=0))
    assert [progress.products for progress in seen][-2:] == [48, 50]
    assert together.num_products == 50
    assert together.trace == pytest.approx(single.trace, rel=1e-12)
    assert together.squared_norm_error == pytest.approx(single.squared_norm_error, rel=1e-12)


def test_a_diagonal_matrix_is_exact_and_ends_early():
    operator = MatrixOperator(torch.diag(torch.arange(1.0, 9.0, dtype=torch.float64)))
    seen, found = finish(hutchinson_trace(operator))
    assert (found.trace, found.trace_error, found.num_products) == (36.0, 0.0, 10)
    assert [progress.products for progress in seen] == list(range(1, 11))


def test_a_single_product_is_refused_because_it_has_no_error():
    with pytest.raises(ProbeError, match="at least 2"):
        next(hutchinson_trace(symmetric(), max_products=1))


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(ProbeError, match="not finite"):
        finish(hutchinson_trace(MatrixOperator(torch.full((3, 3), torch.inf, dtype=torch.float64))))
