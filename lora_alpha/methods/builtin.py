"""The project's own methods. A new one that shares LoRA's layer is one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lora_alpha.methods.base import Array, Method, Parts


class Pissa(Method):
    """PiSSA: exported, it is LoRA of twice the rank over the *original* base, [A; A0] and [B, −B0]."""

    def describes(self, config: Mapping[str, Any]) -> bool:
        """By its initialisation, with whatever number of iterations; its scale is α/r."""
        start = str(config.get("init_lora_weights")).lower()
        return start.startswith(self.name) and not RSLORA.describes(config)

    def peft_factors(self, parts: Parts) -> tuple[Array, Array]:
        """Four factors as two."""
        lora_A = np.concatenate([parts["A"], parts["A0"]], axis=0)
        return lora_A, np.concatenate([parts["B"], -parts["B0"]], axis=1)


class Dora(Method):
    """DoRA: rows of the adapted weight have the trained magnitudes for norms."""

    def merged(self, weight_OI: Array, parts: Parts) -> Array:
        """m·(W0 + s·B·A)/‖W0 + s·B·A‖ row by row."""
        weight = super().merged(weight_OI, parts)
        weight *= (parts["magnitude"] / np.linalg.norm(weight, axis=1))[:, None]
        return weight


LORA = Method("lora", "Low-rank adapter with s = α/r.")
RSLORA = Method("rslora", "Rank-stabilised adapter with s = α/√r.", rule="alpha/sqrt(r)")
FULL = Method(
    "full",
    "Every adapted weight trains in full; no rank, no α.",
    uses_rank=False,
    layer="lora_alpha.models.full:Full",
    no_lora_space="it trains weights, not A and B",
    takes_adapters=False,
)
BUILTIN = (
    LORA,
    RSLORA,
    Method(
        "lora-alpha",
        "s = α/r with α = C·r^p taken from the rule (C = 256, p = 1/2).",
        alpha_from_rule=True,
    ),
    Method("lora+", "LoRA with a larger learning rate on B than on A.", default_lr_ratio=16.0),
    Method("lora-fa", "LoRA with A frozen: only B trains.", trains_A=False),
    Pissa(
        "pissa",
        "A and B start from the top singular directions of W0.",
        layer="lora_alpha.models.pissa:Pissa",
        takes_adapters=False,
        peft_start={"init_lora_weights": "pissa"},
    ),
    Dora(
        "dora",
        "LoRA with a trained magnitude per output row.",
        layer="lora_alpha.models.dora:Dora",
        no_lora_space=(
            "they include a magnitude whose norm is held constant while training, so that the training loss "
            "is not a function of A and B alone"
        ),
        peft_options={"use_dora": True},
        peft_vectors={"magnitude": "lora_magnitude_vector"},
    ),
    FULL,
)
