"""DoRA's layer.

Shapes: G configurations of the group, M rows per configuration, I in features, O out features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.models.group_layer import LayerFactors, LayerSetting
from lora_alpha.models.low_rank import LowRank
from lora_alpha.models.low_rank_product import GroupFactors


class Dora(LowRank):
    """DoRA: y = bias + m·(W0·x + s·B·A·x)/‖W0 + s·B·A‖ per output row; the norm is held constant.

    ‖W0 + s·B·A‖² = ‖W0‖² + 2s·⟨W0·Aᵀ, B⟩ + s²·B(A·Aᵀ)Bᵀ row by row: no O×I product.

    Source: Liu et al. 2024 (2402.09353), §4.3 for the detached norm.
    """

    weight_OI: Tensor
    weight_norm_O: Tensor
    has_purity = False  # the loss sees the direction through the magnitude

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__(setting)
        num_configs = len(setting.scales)
        self.register_buffer("weight_OI", setting.weight_OI, persistent=False)
        norm_O = torch.linalg.vector_norm(setting.weight_OI.to(setting.trained_dtype), dim=1)
        self.register_buffer("weight_norm_O", norm_O)
        self.magnitude = nn.Parameter(self.weight_norm_O.repeat(num_configs, 1))

    def roles(self) -> dict[str, nn.Parameter]:
        """A, B and the magnitude."""
        return {**super().roles(), "magnitude": self.magnitude}

    def factors(self, *, start: int, dtype: torch.dtype) -> GroupFactors | None:
        """None: the sum is rescaled."""
        del start, dtype
        return None

    def forward(self, x_GMI: Tensor, seen_GMI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """The rescaled sum. With dropout what the rescaling adds, (m/‖·‖ - 1)·W0·x, sees ``seen_GMI`` too.

        Source of the latter: PEFT.
        """
        ratio_G1O = (self.magnitude / self.adapted_norm()).to(x_GMI.dtype)[:, None, :]
        rescaled_GMO = self.sum_with(seen_GMI, seen_GMI, weight_OI, None) * ratio_G1O
        if seen_GMI is not x_GMI:
            rescaled_GMO = rescaled_GMO + F.linear(x_GMI - seen_GMI, weight_OI)
        return rescaled_GMO if bias_O is None else rescaled_GMO + bias_O

    @torch.no_grad()
    def adapted_norm(self) -> Tensor:
        """Row norms of W0 + s·B·A, shape (G, O)."""
        scale_G11 = self.effective_scale_G[:, None, None]
        cross_GOR = torch.matmul(self.weight_OI, self.A.mT.to(self.weight_OI.dtype)).to(self.A.dtype)
        gram_GRR = torch.bmm(self.A, self.A.transpose(1, 2))
        product_GOR = torch.bmm(self.B, gram_GRR)
        extra_GO = ((2 * scale_G11 * cross_GOR + scale_G11**2 * product_GOR) * self.B).sum(2)
        return (self.weight_norm_O**2 + extra_GO).clamp(min=0).sqrt()

    def reset(self, group_index: int) -> None:
        """A = B = 0 and the base's own norms."""
        super().reset(group_index)
        self.magnitude[group_index] = self.weight_norm_O

    def export(self, group_index: int) -> dict[str, Tensor]:
        """Also the magnitude."""
        return {**super().export(group_index), "magnitude": self.magnitude[group_index]}

    def load(self, tensors: Mapping[str, Tensor], group_index: int) -> None:
        """Also the magnitude."""
        super().load(tensors, group_index)
        self.magnitude[group_index] = tensors["magnitude"]

    @classmethod
    def probe_factors(cls, weight_OI: Tensor, tensors: Mapping[str, Tensor]) -> LayerFactors:
        """The rescaled weight as a whole."""
        now = super().probe_factors(weight_OI, tensors)
        assert now.A is not None
        assert now.B is not None
        direction = weight_OI.double() + now.scale * (now.B.double() @ now.A.double())
        length = direction.norm(dim=1, keepdim=True)
        weight = tensors["magnitude"].to(direction)[:, None] * direction / length
        return LayerFactors(None, None, base=weight.to(weight_OI))
