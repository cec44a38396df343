"""The derived facts about the Hessian at B = 0, on dense matrices and on the solver."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_alpha.curvature.coordinates import probed_model
from lora_alpha.curvature.hvp import HessianOperator
from lora_alpha.curvature.lanczos import lanczos
from lora_alpha.curvature.points import factors_at
from lora_alpha.curvature.suppression import RescaledOperator, find_crossing
from lora_alpha.errors import ProbeError
from lora_alpha.models.packed import inject
from lora_alpha.scaling import spectral_match_alpha
from lora_alpha.spec import Configuration


def finish(generator):
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def blocks(factors):
    """Index of each layer's A and B in LoRA coordinates and of its W in full ones."""
    lora, full, found = 0, 0, {}
    for name, layer in factors.items():
        sizes = layer.A.numel(), layer.B.numel(), layer.A.shape[1] * layer.B.shape[0]
        found[name] = (
            slice(lora, lora + sizes[0]),
            slice(lora + sizes[0], lora + sizes[0] + sizes[1]),
            slice(full, full + sizes[2]),
        )
        lora, full = lora + sizes[0] + sizes[1], full + sizes[2]
    return found


def test_curvature_along_A_vanishes_at_zero_B(factors_at_start, dense_at_start):
    hessian, index = dense_at_start["lora"].hessian, blocks(factors_at_start)
    for first in index.values():
        for second in index.values():
            assert float(hessian[first[0], second[0]].abs().max()) < 1e-12


def test_curvature_along_B_is_the_full_one_seen_through_A(factors_at_start, dense_at_start):
    """H_BB = s²·(I⊗A)·H_W·(I⊗Aᵀ) in row-major order, between layers too."""
    lora, full, index = (
        dense_at_start["lora"].hessian,
        dense_at_start["full"].hessian,
        blocks(factors_at_start),
    )
    through = {
        name: layer.scale * torch.kron(torch.eye(len(layer.B), dtype=torch.float64), layer.A)
        for name, layer in factors_at_start.items()
    }
    for first, rows in index.items():
        for second, columns in index.items():
            expected = through[first] @ full[rows[2], columns[2]] @ through[second].T
            torch.testing.assert_close(lora[rows[1], columns[1]], expected, rtol=1e-10, atol=1e-11)


def test_mixed_block_has_the_gradients_singular_values_rank_times(factors_at_start, dense_at_start):
    hessian, index = dense_at_start["lora"].hessian, blocks(factors_at_start)
    gradient_full = dense_at_start["full"].gradient
    for first, rows in index.items():
        layer = factors_at_start[first]
        rank = len(layer.A)
        gradient = gradient_full[rows[2]].view(len(layer.B), layer.A.shape[1])
        # The mixed block also sees curvature, s·(I⊗A)·H_W·∂(s·B·A)/∂A, which vanishes with B.
        sigma = layer.scale * torch.linalg.svdvals(gradient)
        expected = sigma.repeat_interleave(rank)
        found = torch.linalg.svdvals(hessian[rows[0], rows[1]])
        torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-9, atol=1e-12)
        assert float(found[len(expected) :].abs().sum()) < 1e-10
        for second, columns in index.items():
            if second != first:
                assert float(hessian[rows[0], columns[1]].abs().max()) < 1e-12


def test_spectrum_is_indefinite_at_zero_B(dense_at_start):
    values = torch.linalg.eigvalsh(dense_at_start["lora"].hessian)
    assert values[0] < -1e-3
    assert values[-1] > 1e-3


WIDTH = 48


@pytest.fixture(scope="module")
def network():
    """A 3-layer ReLU network in float64 that regresses on its own outputs at shifted weights."""
    torch.manual_seed(3)
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(3)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double()
    x = torch.randn(128, WIDTH, dtype=torch.float64)
    shifted = {k: v + 0.5 * v.std() * torch.randn_like(v) for k, v in model.state_dict().items()}
    target = torch.func.functional_call(model, shifted, (x,)).detach()
    return model.requires_grad_(False), lambda: F.mse_loss(model(x), target)


def operator_at(network, *, space, rank=4, scale=1.0, seed=5):
    model, loss_of_model = network
    fresh = Configuration(method="lora", rank=rank, alpha=scale * rank, lr=1.0, seed=seed)
    tensors_at_start = inject(copy.deepcopy(model), ["0", "2", "4"], [fresh]).export()[0]
    factors = factors_at(model, tensors_at_start, method="lora", space=space)
    with probed_model(model, factors, space=space) as coordinates:

        def loss(leaves):
            coordinates.assign(leaves)
            return loss_of_model()

        tensors = coordinates.tensors()
        operator = HessianOperator(loss, tensors)
    is_B = torch.cat(
        [torch.full((t.numel(),), index % 2 == 1, dtype=torch.bool) for index, t in enumerate(tensors)]
    )
    return operator, is_B


def test_one_graph_serves_every_scale(network):
    base, is_B = operator_at(network, space="lora")
    for scale in (0.3, 8.0):
        direct, _ = operator_at(network, space="lora", scale=scale)
        rescaled = RescaledOperator(base, is_B, scale=scale)
        vector = torch.randn(base.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(rescaled.matvec(vector), direct.matvec(vector), rtol=1e-10, atol=1e-12)


def sharpest_full(network):
    return float(finish(lanczos(operator_at(network, space="full")[0], num_top=1)).top[0])


@pytest.mark.parametrize(("rank", "low", "high"), [(1, 1.0, 3.0), (4, 0.6, 1.4), (12, 0.6, 1.4)])
def test_curvature_along_B_is_r_over_3_in_of_the_full_one(network, rank, low, high):
    """λ(H_BB)/λ(H_W) ≈ s²·r/(3·in), here at s = 1; a mean over draws of A, whose coordinates are cut out."""
    found = []
    for seed in range(6):
        lora, is_B = operator_at(network, space="lora", rank=rank, seed=seed)

        class AlongB(RescaledOperator):
            def matvec(self, vector_P, lora=lora, is_B=is_B):
                return is_B * lora.matvec(is_B * vector_P)

        found.append(float(finish(lanczos(AlongB(lora, is_B, scale=1.0), num_top=1)).top[0]))
    ratio = sum(found) / len(found) / sharpest_full(network)
    # Of few directions the sharpest is taken, so that rank 1 lies above the mean that is predicted.
    assert low < ratio / (rank / (3 * WIDTH)) < high


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_curvatures_meet_near_or_below_the_predicted_alpha(network, rank):
    """√(3·in·r) leaves the gradient's block out: a low rank, where that dominates, crosses earlier."""
    lambda_full = sharpest_full(network)
    lora, is_B = operator_at(network, space="lora", rank=rank)
    crossing = finish(find_crossing(lora, is_B, lambda_full=lambda_full, start=4.0))
    at_crossing, _ = operator_at(network, space="lora", rank=rank, scale=crossing.scale)
    assert float(finish(lanczos(at_crossing, num_top=1)).top[0]) == pytest.approx(lambda_full, rel=2e-3)
    ratio = crossing.scale * rank / spectral_match_alpha(WIDTH, rank)
    assert 1 <= crossing.exponent <= 2
    if rank == 1:
        assert crossing.exponent < 1.1  # λ_max ∝ s: the gradient decides
        assert ratio < 0.5
    else:
        assert 0.5 < ratio < 1.2


def test_alpha_equal_rank_suppresses_and_its_lambda_grows_between_s_and_s_squared(network):
    full, _ = operator_at(network, space="full")
    lambda_full = float(finish(lanczos(full, num_top=1)).top[0])
    lora, is_B = operator_at(network, space="lora")

    def sharpest(scale):
        return float(finish(lanczos(RescaledOperator(lora, is_B, scale=scale), num_top=1)).top[0])

    assert sharpest(1.0) < lambda_full / 2
    slopes = [math.log(sharpest(2 * s) / sharpest(s), 2) for s in (0.1, 1.0, 10.0, 100.0)]
    assert slopes == sorted(slopes)
    assert 1 <= slopes[0] < 1.6
    assert 1.9 < slopes[-1] <= 2.0 + 1e-6


def test_a_negative_reference_is_refused(network):
    lora, is_B = operator_at(network, space="lora")
    with pytest.raises(ProbeError, match="needs it positive"):
        finish(find_crossing(lora, is_B, lambda_full=-1.0))
