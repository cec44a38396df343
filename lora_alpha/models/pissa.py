"""PiSSA's layer.

Shapes: G configurations of the group, M rows per configuration, I in features, O out features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lora_alpha.models.group_layer import LayerFactors, LayerSetting
from lora_alpha.models.low_rank import LowRank


class Pissa(LowRank):
    """PiSSA: A and B start from the top R singular directions of W0, whose product leaves the base.

    y = W0·x + s·B·A·x − s·B0·A0·x, so that training starts from W0 itself.

    Source: Meng et al. 2024 (2404.02948); the division by s is PEFT's.
    """

    A0: Tensor
    B0: Tensor

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__(setting)
        self.register_buffer("A0", self.A.detach().clone())
        self.register_buffer("B0", self.B.detach().clone())

    def initial_factors(self, setting: LayerSetting) -> tuple[Tensor, Tensor]:
        """√(S/s)·Vᵀ and U·√(S/s), the same for every seed.

        A rank beyond that of W0 is filled with zeros, which have no gradient and stay zero.
        """
        u, s, vh = (tensor.to(setting.trained_dtype) for tensor in setting.svd())
        rank = min(setting.rank, len(s))
        out_features, in_features = setting.weight_OI.shape
        a_GRI = s.new_zeros(len(setting.scales), setting.rank, in_features)
        b_GOR = s.new_zeros(len(setting.scales), out_features, setting.rank)
        for index, scale in enumerate(setting.scales):
            root = (s[:rank] / scale).sqrt()
            a_GRI[index, :rank] = root[:, None] * vh[:rank]
            b_GOR[index, :, :rank] = u[:, :rank] * root
        return a_GRI, b_GOR

    def update_factors(self) -> tuple[Tensor, Tensor]:
        """B·A − B0·A0 as (B − B0)·A + B0·(A − A0): no large products that cancel, exactly 0 at first."""
        return torch.cat([self.A, self.A - self.A0], dim=1), torch.cat([self.B - self.B0, self.B0], dim=2)

    def forward(self, x_GMI: Tensor, seen_GMI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """The frozen part of the product belongs to the base and sees x; the trained part ``seen_GMI``."""
        y_GMO = self.sum_with(x_GMI, seen_GMI, weight_OI, bias_O)
        if seen_GMI is x_GMI:
            return y_GMO
        # The sum has taken the frozen part off what was seen; take it off what was dropped as well.
        dtype = x_GMI.dtype
        hidden_GMR = torch.bmm(x_GMI - seen_GMI, self.A0.mT.to(dtype))
        hidden_GMR = hidden_GMR * self.effective_scale_G.to(dtype)[:, None, None]
        return torch.baddbmm(y_GMO, hidden_GMR, -self.B0.mT.to(dtype))

    def reset(self, group_index: int) -> None:
        """A = A0, B = B0."""
        self.A[group_index] = self.A0[group_index]
        self.B[group_index] = self.B0[group_index]

    def export(self, group_index: int) -> dict[str, Tensor]:
        """Also the initial factors, without which the base cannot be rebuilt."""
        return {**super().export(group_index), "A0": self.A0[group_index], "B0": self.B0[group_index]}

    def load(self, tensors: Mapping[str, Tensor], group_index: int) -> None:
        """Take all four factors."""
        super().load(tensors, group_index)
        self.A0[group_index] = tensors["A0"]
        self.B0[group_index] = tensors["B0"]

    @classmethod
    def probe_factors(cls, weight_OI: Tensor, tensors: Mapping[str, Tensor]) -> LayerFactors:
        """A and B over W0 − s·B0·A0."""
        now = super().probe_factors(weight_OI, tensors)
        start_A, start_B = (tensors[name].to(weight_OI).double() for name in ("A0", "B0"))
        base = (weight_OI.double() - now.scale * (start_B @ start_A)).to(weight_OI)
        return replace(now, base=base)
