"""Which layers carry adapters, and what is said of the others."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn

from lora_alpha.errors import InvalidSpec, WorkloadError
from lora_alpha.models.packed import inject
from lora_alpha.models.targets import check_targets
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.optimizers import make_optimizer
from tests.tiny_models import tiny_bert, tiny_gpt2, tiny_llama

PACK = [Configuration(method="lora", rank=2, alpha=4.0, lr=1e-3, seed=seed) for seed in range(3)]


def quantised_linear() -> nn.Module:
    """A layer as bitsandbytes makes them: a subclass of ``nn.Linear`` with a weight in whole numbers."""

    class Linear8bitLt(nn.Linear):
        def forward(self, x):
            raise NotImplementedError

    layer = Linear8bitLt(4, 4)
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    return layer


def other_linear() -> nn.Module:
    """A packed 4-bit layer that is no ``nn.Linear`` at all."""
    module = types.ModuleType("quantiser")
    module.QuantLinear = type("QuantLinear", (nn.Module,), {"__module__": "quantiser"})
    layer = module.QuantLinear()
    layer.weight = nn.Parameter(torch.zeros(2, 4), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("make", "target", "message"),
    [
        (quantised_linear, "layer", "int8 weights: load the model unquantised"),
        (other_linear, "layer", "quantiser.QuantLinear"),
        (lambda: nn.Embedding(4, 4), "layer", "Embedding: choose linear layers"),
        (lambda: nn.Conv1d(4, 4, 1), "layer", "Conv1d: choose linear layers"),
        (lambda: nn.MultiheadAttention(4, 2), "layer.out_proj", "reads the weight without calling it"),
        (lambda: nn.Linear(4, 4), "nothing", "no such layer"),
    ],
    ids=["int8", "packed", "embedding", "convolution", "attention", "absent"],
)
def test_a_layer_that_cannot_be_adapted_is_refused_with_the_reason(make, target, message):
    model = nn.ModuleDict({"layer": make(), "good": nn.Linear(4, 4)})
    with pytest.raises(InvalidSpec, match=message) as caught:
        inject(model, [target, "good"], PACK)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].message.startswith(target)
    assert type(model.good) is nn.Linear, "a refused model stays as it was"


def test_every_bad_target_is_named():
    model = nn.ModuleDict({"a": nn.Embedding(4, 4), "b": nn.LayerNorm(4)})
    with pytest.raises(InvalidSpec) as caught:
        check_targets(model, ["a", "b", "c"])
    assert [problem.message.split()[0] for problem in caught.value.problems] == ["a", "b", "c:"]


def test_no_target_and_a_shared_module_are_refused():
    with pytest.raises(InvalidSpec, match="at least one"):
        check_targets(nn.Linear(2, 2), [])
    shared = nn.Linear(4, 4)
    with pytest.raises(InvalidSpec, match="same module as first"):
        check_targets(nn.ModuleDict({"first": shared, "second": shared}), ["first", "second"])


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_head_tied_to_the_embedding_is_refused(make):
    with pytest.raises(InvalidSpec, match="lm_head shares its weight with an embedding"):
        inject(make(), ["lm_head"], PACK)
    inject(tiny_llama(tie_word_embeddings=False), ["lm_head"], PACK)


def test_rows_that_a_router_chose_are_refused():
    model = nn.ModuleDict({"expert": nn.Linear(4, 4)})
    inject(model, ["expert"], PACK)
    with pytest.raises(InvalidSpec, match="expert got 7 rows for 3 configurations"):
        model.expert(torch.zeros(7, 4))


def test_layers_that_the_loss_does_not_reach_are_named():
    model = tiny_bert().eval().requires_grad_(False)
    names = ["bert.encoder.layer.0.attention.self.query", "bert.pooler.dense"]
    adapters = inject(model, names, PACK)
    optimizer = make_optimizer(adapters, TrainSpec(workload="", steps=1, batch_size=1))
    ids = torch.ones(3, 5, dtype=torch.long)
    model.bert(input_ids=ids).last_hidden_state.sum().backward()
    with pytest.raises(WorkloadError, match=r"1 of the adapted layers \(bert.pooler.dense\)"):
        optimizer.gradient_norms()
    with pytest.raises(WorkloadError, match="leave them out of the targets"):
        optimizer.step(1.0)


def test_models_can_still_read_an_adapted_layers_weight_and_bias():
    model = tiny_bert()
    base = model.classifier
    inject(model, ["classifier"], PACK)
    assert model.classifier.weight is base.weight
    assert model.classifier.bias is base.bias
