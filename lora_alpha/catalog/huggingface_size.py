"""How large a transformers model is, from its config.json alone: for plans and memory estimates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_alpha.catalog.entry import Footprint
from lora_alpha.catalog.huggingface_options import CausalLMOptions
from lora_alpha.spec import DType

DTYPE_BYTES: dict[str, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
# Values that a training step keeps per token and layer, in units of the hidden and of the inner width:
# measured on packs of LLaMA shapes with inner layers 2 to 8 times as wide (within a quarter) and of GPT-2 (a
# sixth more).
KEPT_PER_HIDDEN, KEPT_PER_INNER = 20, 5
# With gradient checkpointing only a layer's input is kept, and one layer is computed at a time.
KEPT_CHECKPOINTED = 1
CONFIG_NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim"),
    "vocabulary": ("vocab_size",),
}


@dataclass(frozen=True)
class ModelSize:
    """Sizes as a configuration gives them, with the parameters that follow from them (within a tenth)."""

    hidden: int
    layers: int
    inner: int
    vocabulary: int

    @property
    def num_parameters(self) -> int:
        """Attention (4 h²), a gated network (3 h·inner) a layer, and one embedding."""
        block = 4 * self.hidden**2 + 3 * self.hidden * self.inner
        return self.layers * block + self.vocabulary * self.hidden


def read_size(folder: str) -> ModelSize | None:
    """Sizes from ``folder/config.json``; None where it is not there or does not say."""
    try:
        text = (Path(folder).expanduser() / "config.json").read_text(encoding="utf-8")
        config = json.loads(text)
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    config = (
        {**config, **config.get("text_config", {})} if isinstance(config.get("text_config"), dict) else config
    )
    found = {name: _first(config, names) for name, names in CONFIG_NAMES.items()}
    if not found["hidden"] or not found["layers"]:
        return None
    hidden = found["hidden"]
    return ModelSize(hidden, found["layers"], found["inner"] or 4 * hidden, found["vocabulary"] or 0)


def causal_lm_footprint(options: CausalLMOptions, dtype: DType) -> Footprint:
    """What a training step of a causal language model needs; a hub model's sizes are unknown here."""
    size = read_size(options.model)
    if size is None:
        return Footprint(tokens_per_example=options.max_tokens)
    width = DTYPE_BYTES[dtype]
    layer = KEPT_PER_HIDDEN * size.hidden + KEPT_PER_INNER * size.inner
    if options.gradient_checkpointing:
        per_token = (size.layers * KEPT_CHECKPOINTED * size.hidden + layer) * width
    else:
        per_token = size.layers * layer * width
    return Footprint(
        tokens_per_example=options.max_tokens,
        base_bytes=size.num_parameters * width,
        bytes_per_token=per_token // options.accumulation or 1,
        train_flops_per_token=4.0 * size.num_parameters,
    )


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)
