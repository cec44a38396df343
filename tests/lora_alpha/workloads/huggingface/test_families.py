"""Architectures that do something of their own to masks, positions or logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.registry import load_workload
from tests.tiny_folders import NUM_TOKENS, byte_tokenizer

from .test_sft import CPU, drawn, reference_loss

SIZES = {
    "vocab_size": NUM_TOKENS,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
GROUPED = {**SIZES, "num_key_value_heads": 1}
# Class, configuration, whether logits are one linear layer, what stands against packing.
FAMILIES: dict[str, tuple[str, dict[str, Any], bool, str]] = {
    "sliding window": ("Mistral", {**GROUPED, "sliding_window": 16}, True, "within a window"),
    "soft cap": ("Gemma2", {**GROUPED, "head_dim": 8, "final_logit_softcapping": 3.0}, False, ""),
    "scaled logits": ("Granite", {**GROUPED, "logits_scaling": 4.0}, False, ""),
    "fused projections": ("Phi3", GROUPED, True, ""),
    "parallel blocks": ("GPTNeoX", SIZES, True, ""),
    "offset positions": ("OPT", {**SIZES, "ffn_dim": 32, "word_embed_proj_dim": 16}, True, ""),
    "slopes for positions": (
        "Bloom",
        {**SIZES, "n_layer": 2, "n_head": 2},
        True,
        "examples of one row apart",
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def folder(family: str) -> Path:
        name, sizes, _, _ = FAMILIES[family]
        path = tmp_path_factory.getbasetemp() / f"family-{name}"
        if not path.exists():
            config = getattr(transformers, f"{name}Config")(**sizes)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = getattr(transformers, f"{name}ForCausalLM")(config)
                for parameter in model.parameters():
                    if parameter.ndim == 2:
                        torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            model.save_pretrained(path)
            byte_tokenizer().save_pretrained(path)
        return path

    return folder


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_loss_is_the_families_own_padded_and_packed(
    made: Callable[[str], Path], data: Path, tmp_path: Path, family: str
) -> None:
    _, _, linear, objection = FAMILIES[family]
    for packing in (False, True):
        options = {"model": str(made(family)), "data": str(data), "max_tokens": 96, "packing": packing}
        workload = load_workload("hf-sft", options)
        for _ in workload.prepare(tmp_path / "cache"):
            pass
        if packing and objection:
            with pytest.raises(InvalidSpec, match=f"workload_options.packing: .*{objection}"):
                workload.build_model(device=CPU, dtype=torch.float32)
            continue
        model = workload.build_model(device=CPU, dtype=torch.float64)
        assert model.logits_are_linear == linear
        batch = workload.batch(model, step=0, seeds=[0], batch_size=2)
        (loss,) = workload.losses(model, batch, num_configs=1)
        assert abs(float(loss) - float(reference_loss(model, workload, drawn(workload, batch)))) < 1e-5


def test_a_model_that_looks_ahead_is_refused(data: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig(**SIZES)
    path = tmp_path / "bert"
    transformers.BertLMHeadModel(config).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    workload = load_workload("hf-sft", {"model": str(path), "data": str(data), "max_tokens": 64})
    for _ in workload.prepare(tmp_path / "cache"):
        pass
    with pytest.raises(InvalidSpec, match=r"BertLMHeadModel lets a token see those after it"):
        workload.build_model(device=CPU, dtype=torch.float32)
