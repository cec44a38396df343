"""The hand-written derivative against autograd, finite differences and isolation."""

from __future__ import annotations

import pytest
import torch

from lora_alpha.models.low_rank_product import NARROW, GroupFactors, low_rank_sum


def parts(*, bias: bool = True, generator_seed: int = 0, ranks: tuple[int, int] = (1, 3)):
    generator = torch.Generator().manual_seed(generator_seed)

    def draw(*shape: int, grad: bool = True) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)

    x, weight = draw(5, 3, 4), draw(6, 4, grad=False)
    groups = [
        GroupFactors(0, 2, draw(2, ranks[0], 4), draw(2, 6, ranks[0]), draw(2, grad=False)),
        GroupFactors(2, 5, draw(3, ranks[1], 4), draw(3, 6, ranks[1]), draw(3, grad=False)),
    ]
    return x, weight, draw(6, grad=False) if bias else None, groups


def dense(x, weight, bias, groups, seen=None):
    seen = x if seen is None else seen
    outputs = []
    for group in groups:
        for group_index in range(group.stop - group.start):
            index = group.start + group_index
            change = group.scale[group_index] * group.B[group_index] @ group.A[group_index]
            y = x[index] @ weight.T + seen[index] @ change.T
            outputs.append(y if bias is None else y + bias)
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("bias", "ranks", "separate"),
    [
        (True, (1, 3), False),
        (False, (1, 3), True),
        (True, (NARROW, NARROW - 1), True),
        (False, (2, 40), False),
    ],
)
def test_sum_and_gradients_equal_dense_weights(bias, ranks, separate):
    x, weight, offset, groups = parts(bias=bias, ranks=ranks)
    seen = (x.detach() * 2 - 1).requires_grad_() if separate else None
    inputs = [
        x,
        *([seen] if separate else []),
        *(factor for group in groups for factor in (group.A, group.B)),
    ]
    target = torch.randn(5, 3, 6, dtype=torch.float64)
    found = low_rank_sum(x, weight, offset, groups, seen_NMI=seen)
    expected = dense(x, weight, offset, groups, seen)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    for mine, theirs in zip(
        torch.autograd.grad((found * target).sum(), inputs),
        torch.autograd.grad((expected * target).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ranks", [(1, 3), (NARROW, 2)])
def test_first_and_second_derivatives_equal_finite_differences(ranks):
    x, weight, bias, groups = parts(ranks=ranks)
    factors = [factor for group in groups for factor in (group.A, group.B)]

    def function(x, *factors):
        rebuilt = [
            GroupFactors(g.start, g.stop, factors[2 * i], factors[2 * i + 1], g.scale)
            for i, g in enumerate(groups)
        ]
        return low_rank_sum(x, weight, bias, rebuilt)

    assert torch.autograd.gradcheck(function, (x, *factors))
    assert torch.autograd.gradgradcheck(function, (x, *factors))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ranks", [(1, 3), (NARROW, 40)])
def test_what_new_memory_held_reaches_no_gradient(dtype, ranks):
    x, weight, offset, groups = parts(ranks=ranks)
    cast = [GroupFactors(g.start, g.stop, g.A.to(dtype), g.B.to(dtype), g.scale.to(dtype)) for g in groups]
    seen = x.detach().to(dtype).requires_grad_()

    def gradient():
        y = low_rank_sum(x.detach().to(dtype), weight.to(dtype), offset.to(dtype), cast, seen_NMI=seen)
        return torch.autograd.grad(y.square().sum(), seen)[0]

    expected = gradient()
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        assert torch.empty(3).isnan().all()
        assert torch.equal(gradient(), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_model_may_change_the_sum_in_place():
    x, weight, bias, groups = parts()
    y = low_rank_sum(x, weight, bias, groups)
    y.view(5, 3, 2, 3)[..., 1:].add_(1.0).mul_(2.0)
    y.sum().backward()
    found, x.grad = x.grad, None
    expected = dense(x, weight, bias, groups).clone()
    expected[..., [1, 2, 4, 5]] *= 2.0
    expected.sum().backward()
    torch.testing.assert_close(found, x.grad)


def test_input_without_gradient_and_frozen_A_get_none():
    x, weight, bias, groups = parts()
    frozen = [GroupFactors(g.start, g.stop, g.A.detach(), g.B, g.scale) for g in groups]
    low_rank_sum(x.detach(), weight, bias, frozen).sum().backward()
    assert x.grad is None
    assert all(group.A.grad is None for group in groups)
    assert all(group.B.grad is not None for group in groups)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e300])
def test_one_configuration_cannot_reach_another(poison):
    x, weight, bias, groups = parts()
    target = torch.randn(5, 3, 6, dtype=torch.float64)

    def run(groups):
        leaves = [x, *(factor for group in groups for factor in (group.A, group.B))]
        y = low_rank_sum(x, weight, bias, groups)
        return y, *torch.autograd.grad((y * target).sum(), leaves)

    clean = run(groups)
    with torch.no_grad():
        groups[1].B[1].fill_(poison)
        x[3] *= poison
    dirty = run(groups)
    y, grad_x, grad_A0, grad_B0, grad_A1, grad_B1 = zip(clean, dirty, strict=True)
    others = [0, 1, 2, 4]
    for before, after in (y, grad_x):
        assert torch.equal(before[others], after[others])
    for before, after in (grad_A0, grad_B0):
        assert torch.equal(before, after)
    for before, after in (grad_A1, grad_B1):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
