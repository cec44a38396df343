"""What a pack keeps for its backward pass: proportional to its rows, and what the planner reckons with."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lora_alpha.catalog import workload_info
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration
from tests.tiny_models import VOCABULARY, tiny_llama

SHAPE = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
EXAMPLES, TOKENS = 2, 16


def kept_bytes(num_configs: int, method: str) -> int:
    """Bytes of all tensors that autograd keeps in one forward pass, weights and adapters apart."""
    model = tiny_llama(**SHAPE, num_key_value_heads=4).eval().requires_grad_(False)
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"]
    pack = [
        Configuration(method=method, rank=4, alpha=8.0, lr=1e-3, seed=seed) for seed in range(num_configs)
    ]
    inject(model, linear, pack)
    standing = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in standing:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # an address must not be used twice
        return tensor

    ids = torch.randint(VOCABULARY, (num_configs * EXAMPLES, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=ids)
    return sum(kept.values())


@pytest.mark.parametrize("method", ["lora", "pissa", "dora"])
def test_what_is_kept_grows_with_the_configurations(method):
    one, two, eight = (kept_bytes(n, method) for n in (1, 2, 8))
    assert (two - one) * 7 == pytest.approx(eight - one, rel=0.01)
    assert eight < 8.1 * one


def test_the_planner_reckons_with_what_is_kept(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SHAPE, "vocab_size": VOCABULARY}), encoding="utf-8")
    options = {"model": str(tmp_path), "data": "train.jsonl", "max_tokens": TOKENS}
    planned = workload_info("hf-sft").footprint(options).bytes_per_token
    kept = kept_bytes(8, "lora") / (8 * EXAMPLES * TOKENS)
    assert kept <= planned <= 2 * kept
