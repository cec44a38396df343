"""The packed optimisers against ``torch.optim`` on one configuration at a time, and their bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lora_alpha.errors import WorkloadError
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.optimizers import (
    Numbers,
    PackedAdamW,
    PackedOptimizer,
    PackedSGD,
    Slice,
    make_optimizer,
    numbers_for,
)

# In pack order: two alike, one of another lr with ratios on B, one of another rank, full fine-tuning apart.
SHARED: dict[str, Any] = {"method": "lora", "alpha": 8.0, "lr": 1e-2}
MIXED = {"lr": 2e-2, "lr_ratio": 4.0, "eps_ratio": 0.5, "weight_decay_ratio": 0.25}
PACK = [
    Configuration(method="full", lr=3e-2),
    Configuration(**SHARED, rank=2),
    Configuration(**SHARED, rank=2, seed=1),
    Configuration(**{**SHARED, **MIXED}, rank=2),
    Configuration(**SHARED, rank=3),
    Configuration(**SHARED, rank=3, seed=1),
]


def spec(**changes: Any) -> TrainSpec:
    given = {"workload": "mlp", "steps": 9, "batch_size": 1, "weight_decay": 0.1, "eps": 1e-3, **changes}
    return TrainSpec(**given)


def optimizer_of(
    train: TrainSpec, configurations: Sequence[Configuration] = PACK, *, num_layers: int = 2
) -> PackedOptimizer:
    """The optimiser of a pack over layers of 4 inputs and 4 outputs, with B away from 0."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(num_layers))).double()
    adapters = inject(model, [str(index) for index in range(num_layers)], configurations)
    assert adapters.order == tuple(range(len(configurations)))
    optimizer = make_optimizer(adapters, train)
    generator = torch.Generator().manual_seed(0)
    for parameter in optimizer.parameters:
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return optimizer


def fill_gradients(optimizer: PackedOptimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in optimizer.parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def own(optimizer: PackedOptimizer, index: int, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The rows of configuration ``index`` in every tensor that has some."""
    spans = zip(tensors, optimizer.starts, strict=True)
    return [tensor[index - start] for tensor, start in spans if start <= index < start + len(tensor)]


def gradients(optimizer: PackedOptimizer) -> list[Tensor]:
    found = [parameter.grad for parameter in optimizer.parameters if parameter.grad is not None]
    assert len(found) == len(optimizer.parameters)
    return found


def values(optimizer: PackedOptimizer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in optimizer.parameters]


def alone(optimizer: PackedOptimizer, index: int) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """``torch.optim`` on copies of one configuration's parameters, its numbers written out."""
    c, train = optimizer.configurations[index], optimizer.train
    parameters = [nn.Parameter(tensor.clone()) for tensor in own(optimizer, index, values(optimizer))]
    roles = (["weight"] if c.method == "full" else ["A", "B"]) * (len(set(optimizer.names)))
    groups = []
    for parameter, role in zip(parameters, roles, strict=True):
        on_b = role == "B"
        group = {"params": [parameter], "lr": c.lr * (c.lr_ratio if on_b else 1)}
        group["weight_decay"] = train.weight_decay * (c.weight_decay_ratio if on_b else 1)
        if train.optimizer == "adamw":
            group["eps"] = train.eps * (c.eps_ratio if on_b else 1)
        groups.append(group)
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=train.betas), parameters
    return torch.optim.SGD(groups), parameters


def test_the_ratios_belong_to_B_alone() -> None:
    shared = Numbers(lr=2e-2, eps=1e-3, weight_decay=0.1)
    assert numbers_for(PACK[3], "B", spec()) == Numbers(lr=8e-2, eps=5e-4, weight_decay=0.025)
    for role in ("A", "magnitude", "weight"):
        assert numbers_for(PACK[3], role, spec()) == shared


@pytest.mark.parametrize(
    "changes",
    [{"betas": (0.8, 0.95)}, {"optimizer": "sgd"}, {"optimizer": "sgd", "weight_decay": 0.0}],
    ids=["adamw", "sgd", "sgd without decay"],
)
def test_each_configuration_moves_as_torch_moves_it_alone(changes: dict[str, Any]) -> None:
    """Over four steps of changing lr; configuration 2, between its like, is frozen after two."""
    optimizer = optimizer_of(spec(**changes))
    references = [alone(optimizer, index) for index in range(len(PACK))]
    for step, factor in enumerate((0.5, 1.0, 0.25, 0.75)):
        fill_gradients(optimizer, step)
        if step == 2:
            optimizer.freeze(2)
        for index, (reference, parameters) in enumerate(references):
            if index == 2 and step >= 2:
                continue
            rates = [group["lr"] for group in reference.param_groups]
            for group, parameter, gradient in zip(
                reference.param_groups, parameters, own(optimizer, index, gradients(optimizer)), strict=True
            ):
                group["lr"] *= factor
                parameter.grad = gradient.clone()
            reference.step()
            for group, rate in zip(reference.param_groups, rates, strict=True):
                group["lr"] = rate
        optimizer.step(factor)
    for index, (_, parameters) in enumerate(references):
        for found, expected in zip(own(optimizer, index, values(optimizer)), parameters, strict=True):
            torch.testing.assert_close(found, expected.detach(), rtol=1e-13, atol=1e-13)


def test_configurations_of_equal_numbers_share_a_call() -> None:
    optimizer = optimizer_of(spec(weight_decay=0.0), [Configuration(**SHARED, rank=2) for _ in range(4)])
    numbers = Numbers(lr=1e-2, eps=1e-3, weight_decay=0.0)
    assert optimizer._slices == {numbers: [Slice(index, 0, 4) for index in range(4)]}
    optimizer.freeze(1)
    assert optimizer._slices[numbers][:2] == [Slice(0, 0, 1), Slice(0, 2, 4)]
    optimizer.freeze(3)
    assert optimizer._slices[numbers][:2] == [Slice(0, 0, 1), Slice(0, 2, 3)]


def test_norms_and_clipping_are_each_configurations_own() -> None:
    optimizer = optimizer_of(spec())
    fill_gradients(optimizer, 3)
    for gradient in gradients(optimizer):
        gradient[0] *= 1e-3  # so that some are below the limit
    before = [gradient.clone() for gradient in gradients(optimizer)]
    norms = optimizer.gradient_norms()
    expected = [
        torch.cat([g.flatten() for g in own(optimizer, index, before)]).norm() for index in range(len(PACK))
    ]
    torch.testing.assert_close(norms, torch.stack(expected))
    limit = 2.0
    assert 0 < sum(norm < limit for norm in expected) < len(PACK)
    optimizer.clip(norms, limit)
    for index, norm in enumerate(expected):
        parameters = [nn.Parameter(torch.zeros_like(g)) for g in own(optimizer, index, before)]
        for parameter, gradient in zip(parameters, own(optimizer, index, before), strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        for found, parameter in zip(own(optimizer, index, gradients(optimizer)), parameters, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(found, parameter.grad, rtol=1e-12, atol=0)
        if norm < limit:
            assert all(
                torch.equal(found, kept)
                for found, kept in zip(
                    own(optimizer, index, gradients(optimizer)), own(optimizer, index, before), strict=True
                )
            )


def test_no_gradient_is_left_from_the_step_before() -> None:
    optimizer = optimizer_of(spec())
    fill_gradients(optimizer, 0)
    optimizer.zero_grad()
    assert [parameter.grad for parameter in optimizer.parameters] == [None] * len(optimizer.parameters)


@pytest.mark.parametrize(
    ("unused", "said"),
    [
        ([1], "1 of the adapted layers (1): "),
        (range(1, 6), "5 of the adapted layers (1, 2, 3, 4, 5): "),
        (range(1, 7), "6 of the adapted layers (1, 2, 3, 4, 5 …): "),
    ],
)
@pytest.mark.parametrize("use", [PackedOptimizer.gradient_norms, lambda optimizer: optimizer.step(1.0)])
def test_a_layer_that_the_loss_does_not_reach_is_named(use: Any, unused: Sequence[int], said: str) -> None:
    optimizer = optimizer_of(spec(), num_layers=8)
    fill_gradients(optimizer, 0)
    for parameter, name in zip(optimizer.parameters, optimizer.names, strict=True):
        if int(name) in unused:
            parameter.grad = None
    with pytest.raises(WorkloadError) as raised:
        use(optimizer)
    assert str(raised.value) == (f"the loss does not depend on {said}leave them out of the targets")


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_state_is_a_copy_that_continues_bitwise(kind: str) -> None:
    first, second = (optimizer_of(spec(optimizer=kind)) for _ in range(2))
    for step in range(2):
        fill_gradients(first, step)
        first.step(1.0)
    first.freeze(3)
    first.freeze(1)
    state, reached = first.state(), values(first)
    fill_gradients(first, 2)
    first.step(1.0)
    for parameter, value in zip(second.parameters, reached, strict=True):
        parameter.data.copy_(value)
    second.load_state(state)
    assert state["frozen"] == [1, 3]
    fill_gradients(second, 2)
    second.step(1.0)
    for one, other in zip(values(first), values(second), strict=True):
        assert torch.equal(one, other)
    for index in (1, 3):
        for now, then in zip(own(second, index, values(second)), own(second, index, reached), strict=True):
            assert torch.equal(now, then)
    second.freeze(0)
    assert first.state()["frozen"] == [1, 3]


@pytest.mark.parametrize("moments", ["exp_avgs", "exp_avg_sqs"])
def test_a_state_of_fewer_layers_is_refused(moments: str) -> None:
    state = optimizer_of(spec()).state()
    with pytest.raises(ValueError, match="shorter"):
        optimizer_of(spec()).load_state({**state, moments: state[moments][:-1]})


def test_the_optimizer_is_the_one_named() -> None:
    assert type(optimizer_of(spec(optimizer="adamw"))) is PackedAdamW
    assert type(optimizer_of(spec(optimizer="sgd"))) is PackedSGD
    with pytest.raises(NotImplementedError):
        PackedOptimizer.step(optimizer_of(spec()), 1.0)
