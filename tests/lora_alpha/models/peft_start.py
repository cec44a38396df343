"""PEFT's adapter at the very point where ours starts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_alpha.models.targets import linear_weight


@torch.no_grad()
def load_start(layer: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Copy A and B of one exported layer into PEFT's; a start B0·A0 (PiSSA) is taken out of the base."""
    layer.lora_A["default"].weight.copy_(start["A"])
    layer.lora_B["default"].weight.copy_(start["B"])
    if "A0" in start:
        weight = linear_weight(layer.base_layer)
        weight.sub_((start["scale"] * start["B0"] @ start["A0"]).to(weight.device))
