"""Where an adapter starts, A by its seed and layer alone, and which configurations share a group."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration


def starts(*seeds: int, rank: int = 4) -> list[dict[str, dict[str, Tensor]]]:
    """The untrained adapters of ``seeds`` over two layers of 16 inputs."""
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    pack = [Configuration(method="lora", rank=rank, alpha=8.0, lr=1e-3, seed=seed) for seed in seeds]
    return inject(model, ["0", "1"], pack).export()


def test_each_seed_draws_its_own_A() -> None:
    zero, one, again = starts(0, 1, 0)
    assert not torch.equal(zero["0"]["A"], one["0"]["A"])
    assert torch.equal(zero["0"]["A"], again["0"]["A"])
    assert not torch.equal(zero["0"]["A"], zero["1"]["A"])


def test_a_seed_means_the_same_A_in_any_pack_and_in_any_version() -> None:
    (alone,) = starts(7)
    assert torch.equal(alone["1"]["A"], starts(1, 7, 3)[1]["1"]["A"])
    generator = torch.Generator().manual_seed(7 * 1_000_003 + 1)
    drawn = torch.rand(4, 16, generator=generator) * 0.5 - 0.25  # uniform in ±1/√16
    torch.testing.assert_close(alone["1"]["A"], drawn)
    assert not alone["1"]["B"].any()


def test_a_group_holds_one_layer_class_one_rank_and_one_answer_to_what_trains():
    model = nn.Sequential(nn.Linear(6, 4)).requires_grad_(False)
    methods = ["lora", "dora", "lora-fa", "rslora", "full", "lora+"]
    ranks = [2, 2, 2, 2, None, 3]
    pack = [
        Configuration(method=method, rank=rank, alpha=rank and 4.0, lr=1.0)
        for method, rank in zip(methods, ranks, strict=True)
    ]
    adapters = inject(model, ["0"], pack)
    groups = [[methods[i] for i in adapters.order[g.start : g.stop]] for _, g, _ in adapters.group_layers()]
    assert groups == [["dora"], ["full"], ["lora-fa"], ["lora", "rslora"], ["lora+"]]
    trained = [sorted(layer.roles()) for _, _, layer in adapters.group_layers()]
    assert trained == [["A", "B", "magnitude"], ["weight"], ["B"], ["A", "B"], ["A", "B"]]
