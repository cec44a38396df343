from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from transformers import CLIPConfig, CLIPModel

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.huggingface_encoders import DualEncoderOptions, dual_encoder_footprint


def options(folder: Path, **changes: object) -> DualEncoderOptions:
    return DualEncoderOptions(model=str(folder), data="pairs.jsonl", **changes)


def test_a_dual_encoders_footprint_counts_both_towers(tmp_path: Path) -> None:
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 1000},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    config.save_pretrained(tmp_path)
    need = dual_encoder_footprint(options(tmp_path, max_tokens=20), "float32")
    assert need.tokens_per_example == 17 + 20
    parameters = sum(parameter.numel() for parameter in CLIPModel(config).parameters())
    assert need.base_bytes == pytest.approx(4 * parameters, rel=0.2)
    cheaper = dual_encoder_footprint(
        options(tmp_path, max_tokens=20, gradient_checkpointing=True), "bfloat16"
    )
    assert cheaper.bytes_per_token < need.bytes_per_token / 2


def test_a_model_on_the_hub_has_no_known_sizes() -> None:
    need = dual_encoder_footprint(options(Path("openai/clip")), "float32")
    assert (need.tokens_per_example, need.base_bytes) == (127, 0)


def test_a_config_without_towers_is_no_dual_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    assert dual_encoder_footprint(options(tmp_path), "float32").base_bytes == 0


def test_a_contrastive_batch_cannot_be_cut() -> None:
    with pytest.raises(ValidationError, match="every pair of a batch is compared"):
        options(Path("x"), accumulation=2)


@pytest.mark.parametrize("name", ["hf-classify", "hf-clip"])
def test_encoders_are_in_the_catalogue(name: str) -> None:
    info = workload_info(name)
    assert info.forgetting
    assert info.options.model_fields["data"].is_required()
