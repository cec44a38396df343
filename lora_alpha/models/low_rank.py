"""LoRA's layer, which every method shares that differs from LoRA in scale, rates or what trains.

Shapes: G configurations of the group, M rows per configuration, I in features, O out features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_alpha.models.group_layer import GroupLayer, LayerFactors, LayerSetting
from lora_alpha.models.low_rank_product import GroupFactors, low_rank_sum


class LowRank(GroupLayer):
    """LoRA: y = W0·x + s·B·A·x. Serves every method that differs in scale, rates or what trains alone."""

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__(setting)
        a_GRI, b_GOR = self.initial_factors(setting)
        self.A = nn.Parameter(a_GRI, requires_grad=setting.trains_A)
        self.B = nn.Parameter(b_GOR)

    def initial_factors(self, setting: LayerSetting) -> tuple[Tensor, Tensor]:
        """A uniform in ±1/√I, B zero: (G, R, I) and (G, O, R)."""
        weight = setting.weight_OI
        out_features, in_features = weight.shape
        bound = in_features**-0.5
        # Drawn in float32 on the CPU, so that dtype and device do not change which adapter a seed means.
        drawn = [
            torch.empty(setting.rank, in_features).uniform_(-bound, bound, generator=generator)
            for generator in setting.generators
        ]
        a_GRI = torch.stack(drawn).to(dtype=setting.trained_dtype, device=weight.device)
        return a_GRI, a_GRI.new_zeros(len(drawn), out_features, setting.rank)

    def roles(self) -> dict[str, nn.Parameter]:
        """A (unless frozen) and B."""
        return {"A": self.A, "B": self.B} if self.A.requires_grad else {"B": self.B}

    def update_factors(self) -> tuple[Tensor, Tensor]:
        """A' and B' with ΔW = s·B'·A'."""
        return self.A, self.B

    def factors(self, *, start: int, dtype: torch.dtype) -> GroupFactors | None:
        """A', B' and s in the dtype of the base, for configurations from ``start`` on."""
        a_GRI, b_GOR = (factor.to(dtype) for factor in self.update_factors())
        return GroupFactors(start, start + len(a_GRI), a_GRI, b_GOR, self.effective_scale_G.to(dtype))

    def forward(self, x_GMI: Tensor, seen_GMI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """W0·x + bias + s·B·A·seen."""
        return self.sum_with(x_GMI, seen_GMI, weight_OI, bias_O)

    def sum_with(self, x_GMI: Tensor, seen_GMI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """The frozen layer and this group's product, added by ``low_rank_sum``."""
        own = LowRank.factors(self, start=0, dtype=x_GMI.dtype)
        assert own is not None
        seen = None if seen_GMI is x_GMI else seen_GMI.contiguous()
        return low_rank_sum(x_GMI.contiguous(), weight_OI, bias_O, [own], seen_NMI=seen)

    def reset(self, group_index: int) -> None:
        """A = B = 0."""
        self.A[group_index] = 0
        self.B[group_index] = 0

    def squared_norms(self) -> dict[str, Tensor]:
        """``norm_A``, ``norm_B``, ``update_norm``."""
        a_GRI, b_GOR = (factor.double() for factor in self.update_factors())
        gram_a = torch.bmm(a_GRI, a_GRI.transpose(1, 2))
        gram_b = torch.bmm(b_GOR.transpose(1, 2), b_GOR)
        return {
            "norm_A": self.A.double().square().sum((1, 2)),
            "norm_B": self.B.double().square().sum((1, 2)),
            "update_norm": (gram_a * gram_b).sum((1, 2)) * self.effective_scale_G.double() ** 2,
        }

    def product(self) -> tuple[Tensor, Tensor]:
        """A and B."""
        return self.A, self.B

    def export(self, group_index: int) -> dict[str, Tensor]:
        """A, B and s."""
        return {
            "A": self.A[group_index],
            "B": self.B[group_index],
            "scale": self.effective_scale_G[group_index],
        }

    def load(self, tensors: Mapping[str, Tensor], group_index: int) -> None:
        """Take A and B; the configuration's own scale stays."""
        self.A[group_index] = tensors["A"]
        self.B[group_index] = tensors["B"]

    def start_from(self, given: Mapping[str, Tensor], group_index: int) -> None:
        """B times s_given/s: α is still what it multiplies updates by. What is not given stays as it is."""
        ratio = float(given["scale"]) / float(self.scale_G[group_index])
        self.load({**self.export(group_index), **given, "B": given["B"] * ratio}, group_index)

    @classmethod
    def probe_factors(cls, weight_OI: Tensor, tensors: Mapping[str, Tensor]) -> LayerFactors:
        """A, B and s over W0."""
        return LayerFactors(tensors["A"].to(weight_OI), tensors["B"].to(weight_OI), float(tensors["scale"]))
