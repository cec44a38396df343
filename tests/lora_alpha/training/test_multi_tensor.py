"""The public way gives what torch's private multi-tensor functions give, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training import multi_tensor
from lora_alpha.training.engine import train_pack
from lora_alpha.workloads.registry import load_workload
from tests.lora_alpha.training.curves import Curves, assert_same_points, curves

PRIVATE = ("HAS_NORM", "HAS_MULTIPLY", "HAS_ADD", "HAS_ADAMW")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def tensors(seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Three slices of larger tensors, as the optimisers hand them over."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3, 5), (4, 7), (4, 2, 33))
    return [torch.randn(shape, generator=generator, dtype=dtype)[1:3] for shape in shapes]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_one_by_one_are_those_of_one_call(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    together = multi_tensor.norms(tensors(0, dtype))
    monkeypatch.setattr(multi_tensor, "HAS_NORM", False)
    assert same(multi_tensor.norms(tensors(0, dtype)), together)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_sums_one_by_one_are_those_of_one_call(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    together, one_by_one = tensors(0, dtype), tensors(0, dtype)
    for found in (together, one_by_one):
        multi_tensor.multiply_(found, 1 - 1e-3)
        multi_tensor.add_(found, tensors(1, dtype), factor=-0.01)
        monkeypatch.setattr(multi_tensor, "HAS_MULTIPLY", False)
        monkeypatch.setattr(multi_tensor, "HAS_ADD", False)
    assert not same(together, tensors(0, dtype))
    assert same(one_by_one, together)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_public_adamw_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    ways = []
    for private in (True, False):
        monkeypatch.setattr(multi_tensor, "HAS_ADAMW", private)
        weights = tensors(0, dtype)
        means, squares = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
        count = torch.zeros((), dtype=torch.float32)
        for step in range(3):
            count += 1
            multi_tensor.adamw_(
                weights,
                tensors(1 + step, dtype),
                means,
                squares,
                count=count,
                lr=0.01,
                betas=(0.9, 0.99),
                weight_decay=0.1,
                eps=1e-6,
            )
        assert count == 3
        ways.append([*weights, *means, *squares])
    private_way, public_way = ways
    assert not same(private_way[:3], tensors(0, dtype))
    assert same(public_way, private_way)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_pack_trains_the_same_without_them(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    def train() -> Curves:
        options = {"width": 16, "shift_rank": 2}
        train_spec = TrainSpec(
            workload="mlp",
            workload_options=options,
            optimizer=optimizer,
            steps=6,
            batch_size=8,
            eval_every=2,
            weight_decay=0.1,
            clip=1.0,
        )
        runs = [
            Configuration(method="lora", rank=rank, alpha=8.0, lr=lr, seed=0)
            for rank, lr in ((2, 1e-3), (2, 1e-2), (4, 1e-3))
        ]
        return curves(train_pack(load_workload("mlp", options), train_spec, runs))

    with_them = train()
    for name in PRIVATE:
        monkeypatch.setattr(multi_tensor, name, False)
    without = train()
    assert_same_points(without, with_them)
    for metric, points in with_them.items():
        for step, values in points.items():
            np.testing.assert_array_equal(without[metric][step], values)
