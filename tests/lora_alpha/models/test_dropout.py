"""Adapter dropout: what is dropped depends on the element alone, and means what it means in PEFT."""

from __future__ import annotations

import peft
import pytest
import torch
from torch import nn

from lora_alpha.models.dropout import AdapterDropout, keep_mask
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration
from lora_alpha.workloads.huggingface.model.loading import enable_checkpointing
from tests.lora_alpha.models.peft_start import load_start
from tests.tiny_models import VOCABULARY, tiny_llama

CPU = torch.device("cpu")


def mask(keys, *, rows=12, tokens=4, features=50, rate=0.3):
    return keep_mask(keys, rows=rows, tokens=tokens, features=features, rate=rate, device=CPU)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 0.9])
def test_the_share_that_goes_is_the_rate(rate):
    found = mask([(0, 1, 0, 2)], rows=512, tokens=32, features=512, rate=rate)
    error = (rate * (1 - rate) / found.numel()) ** 0.5
    assert abs((~found).double().mean() - rate) <= 4 * error


def test_rows_columns_layers_steps_and_seeds_are_independent():
    rows, features = 64, 4096
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    found = mask(keys, rows=rows, tokens=8, features=features, rate=0.5).double() * 2 - 1
    lines = found.reshape(-1, features)  # every row of every key
    correlation = (lines @ lines.T / features).fill_diagonal_(0)
    assert correlation.abs().max() < 5.5 / features**0.5
    columns = found.reshape(-1, features)
    neighbours = (columns[:, :-1] * columns[:, 1:]).mean()
    assert neighbours.abs() < 5 / columns.numel() ** 0.5


def test_an_element_stays_whatever_surrounds_it():
    whole = mask([(3, 7, 0, 1), (4, 7, 0, 1)], rows=12, tokens=4)
    assert torch.equal(mask([(4, 7, 0, 1)], rows=12, tokens=4)[0], whole[1])
    longer = mask([(3, 7, 0, 1)], rows=27, tokens=9)  # three examples, padded to nine tokens
    assert torch.equal(longer[0].view(3, 9, -1)[:, :4], whole[0].view(3, 4, -1))


def test_inputs_drop_inside_the_context_only_and_keep_their_mean():
    dropout = AdapterDropout(0.25, [5])
    assert not dropout.active
    x = torch.ones(1, 400, 100)
    with dropout.dropping(step=2):
        assert dropout.active
        first, again = (dropout.drop(x, layer_index=0, tokens=10) for _ in range(2))
    assert not dropout.active
    assert torch.equal(first, again)
    assert first.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert first.mean() == pytest.approx(1, abs=0.02)


def test_half_precision_rounds_each_element_once():
    x = torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    dropout = AdapterDropout(0.1, [5])
    with dropout.dropping(step=2):
        found = dropout.drop(x, layer_index=0, tokens=8)
    assert found.dtype == torch.bfloat16
    stays = found != 0
    assert torch.equal(found[stays], (x.double() / 0.9).bfloat16()[stays])


class Masked(nn.Module):
    """A stand-in for PEFT's ``nn.Dropout`` that drops our elements."""

    def __init__(self, dropout: AdapterDropout, *, layer: int) -> None:
        super().__init__()
        self.dropout, self.layer = dropout, layer

    def forward(self, x):
        with self.dropout.dropping(step=11):
            return self.dropout.drop(
                x.flatten(0, 1)[None], layer_index=self.layer, tokens=x.shape[1]
            ).view_as(x)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["lora", "lora-fa", "pissa", "dora"])
def test_a_dropping_adapter_is_pefts(method):
    pack = [
        Configuration(method="lora", rank=3, alpha=6.0, lr=1.0, seed=1),
        Configuration(method=method, rank=2, alpha=8.0, lr=1.0, seed=2),
    ]
    names = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"]
    ids = torch.randint(VOCABULARY, (4, 5), generator=torch.Generator().manual_seed(0))
    packed = tiny_llama().eval().requires_grad_(False)
    adapters = inject(packed, names, pack, dropout=0.4)
    pack_index = adapters.order.index(1)
    with torch.no_grad():  # adapters that do something
        for _, _, layer in adapters.group_layers():
            layer.B.add_(torch.randn(layer.B.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    exported = adapters.export()[1]
    with adapters.dropout.dropping(step=11):
        found = packed(input_ids=ids.repeat(2, 1)).logits.view(2, 4, 5, -1)[pack_index]
    still = packed(input_ids=ids.repeat(2, 1)).logits.view(2, 4, 5, -1)[pack_index]

    base = tiny_llama().eval().requires_grad_(False)
    settings = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules=names, lora_dropout=0.4, use_dora=method == "dora"
    )
    model = peft.get_peft_model(base, settings)
    for index, name in enumerate(names):
        layer = model.get_submodule(f"base_model.model.{name}")
        layer.lora_dropout["default"] = Masked(AdapterDropout(0.4, [2]), layer=index)
        layer.train()
        load_start(layer, exported[name])
    torch.testing.assert_close(model(input_ids=ids).logits, found, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, still, atol=1e-3)


def test_gradient_checkpointing_drops_the_same_elements_again():
    pack = [Configuration(method="lora", rank=2, alpha=8.0, lr=1.0, seed=seed) for seed in range(2)]
    ids = torch.randint(VOCABULARY, (4, 5), generator=torch.Generator().manual_seed(0))
    found = []
    for checkpointed in (False, True):
        model = tiny_llama().requires_grad_(False)
        adapters = inject(
            model, ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.v_proj"], pack, dropout=0.5
        )
        if checkpointed:
            enable_checkpointing(model)
        with adapters.dropout.dropping(step=3):
            model(input_ids=ids).logits.square().sum().backward()
        found.append([layer.B.grad for _, _, layer in adapters.group_layers()])
    for plain, again in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(again, plain)
