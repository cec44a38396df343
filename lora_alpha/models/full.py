"""Full fine-tuning's layer.

Shapes: G configurations of the group, M rows per configuration, I in features, O out features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_alpha.models.group_layer import GroupLayer, LayerFactors, LayerSetting


class Full(GroupLayer):
    """Full fine-tuning: each configuration trains its own copy of the weight."""

    base_OI: Tensor

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__(setting)
        self.register_buffer("base_OI", setting.weight_OI, persistent=False)
        weight_OI = setting.weight_OI.to(setting.trained_dtype)
        self.weight = nn.Parameter(weight_OI.repeat(len(setting.scales), 1, 1))

    def roles(self) -> dict[str, nn.Parameter]:
        """The weight."""
        return {"weight": self.weight}

    def forward(self, x_GMI: Tensor, seen_GMI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """W·x + bias; no adapter whose input could drop, no use for the frozen weight."""
        del seen_GMI, weight_OI
        weight_GIO = self.weight.to(x_GMI.dtype).mT
        return torch.bmm(x_GMI, weight_GIO) if bias_O is None else torch.baddbmm(bias_O, x_GMI, weight_GIO)

    def reset(self, group_index: int) -> None:
        """W = W0."""
        self.weight[group_index] = self.base_OI

    def squared_norms(self) -> dict[str, Tensor]:
        """``update_norm``."""
        return {"update_norm": (self.weight - self.base_OI).double().square().sum((1, 2))}

    def dense_weight(self) -> Tensor:
        """The weight."""
        return self.weight

    def export(self, group_index: int) -> dict[str, Tensor]:
        """The weight."""
        return {"weight": self.weight[group_index]}

    def load(self, tensors: Mapping[str, Tensor], group_index: int) -> None:
        """Take the weight."""
        self.weight[group_index] = tensors["weight"]

    @classmethod
    def probe_factors(cls, weight_OI: Tensor, tensors: Mapping[str, Tensor]) -> LayerFactors:
        """The weight as a whole."""
        return LayerFactors(None, None, base=tensors["weight"].to(weight_OI))
