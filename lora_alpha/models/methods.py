"""What each fine-tuning method does inside one layer, for a group of configurations at once.

A method is one class here (or the reuse of one) and one entry in ``GROUP_LAYERS``; its description is in
``lora_alpha/methods.py``.

Shapes: G configurations of the group, M rows per configuration, I in features, O out features, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.models.low_rank_product import GroupFactors, low_rank_sum

Role = Literal["A", "B", "magnitude", "weight"]


@dataclass(frozen=True)
class LayerSetting:
    """What a group needs to know about its layer.

    Attributes:
        weight_OI: The frozen weight W0.
        rank: R; 0 where the method has none.
        scales: Effective scale s of each of the G configurations.
        generators: One generator per configuration for A.
        trains_A: False where A stays as drawn.
        svd: Gives U, S and Vᵀ of W0; computed at the first call of any group.
    """

    weight_OI: Tensor
    rank: int
    scales: Sequence[float]
    generators: Sequence[torch.Generator]
    trains_A: bool
    svd: Callable[[], tuple[Tensor, Tensor, Tensor]]

    @property
    def trained_dtype(self) -> torch.dtype:
        """Float32 at least: in bfloat16 a step of a small lr would round to nothing."""
        return torch.float64 if self.weight_OI.dtype == torch.float64 else torch.float32


class GroupLayer(nn.Module):
    """The adapters of G configurations in one layer. Subclasses say what becomes of the layer's output.

    ``forward(x_GMI, seen_GMI, weight_OI, bias_O)`` gives that output, (G, M, O), from the layer's input, from
    what the adapters see of it (x itself, or x after dropout) and from the frozen layer.

    ``scale_G`` is each configuration's own scale, ``effective_scale_G`` the scale now, α's schedule included;
    both have shape (G,). Parameters keep their dtype, inputs and outputs that of the base.
    """

    scale_G: Tensor
    effective_scale_G: Tensor

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__()
        device = setting.weight_OI.device
        scale = torch.tensor(setting.scales, dtype=setting.trained_dtype, device=device)
        self.register_buffer("scale_G", scale)
        self.register_buffer("effective_scale_G", scale.clone())

    def factors(self, *, start: int, dtype: torch.dtype) -> GroupFactors | None:
        """This group's part of ``low_rank_sum``, or None where the method is no such sum."""
        del start, dtype
        return None

    def set_scale_factor(self, factor_G: Tensor) -> None:
        """Replace the schedule's factor."""
        torch.mul(self.scale_G, factor_G.to(self.scale_G), out=self.effective_scale_G)

    def roles(self) -> dict[Role, nn.Parameter]:
        """Trained parameters by role; the role decides learning rate, ε and decay."""
        raise NotImplementedError

    def reset(self, place: int) -> None:
        """Make configuration ``place`` equal the frozen base."""
        raise NotImplementedError

    def squared_norms(self) -> dict[str, Tensor]:
        """Squared Frobenius norms, each (G,) float64; ``update_norm`` at least."""
        raise NotImplementedError

    def export(self, place: int) -> dict[str, Tensor]:
        """Tensors that describe configuration ``place`` completely."""
        raise NotImplementedError

    def load(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Undo ``export``."""
        raise NotImplementedError


class LowRank(GroupLayer):
    """LoRA: y = W0·x + s·B·A·x. Serves every method that differs in scale or learning rates alone."""

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

    def roles(self) -> dict[Role, nn.Parameter]:
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

    def reset(self, place: int) -> None:
        """A = B = 0."""
        self.A[place] = 0
        self.B[place] = 0

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

    def export(self, place: int) -> dict[str, Tensor]:
        """A, B and s."""
        return {"A": self.A[place], "B": self.B[place], "scale": self.effective_scale_G[place]}

    def load(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Take A and B; the configuration's own scale stays."""
        self.A[place] = tensors["A"]
        self.B[place] = tensors["B"]


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
        for place, scale in enumerate(setting.scales):
            root = (s[:rank] / scale).sqrt()
            a_GRI[place, :rank] = root[:, None] * vh[:rank]
            b_GOR[place, :, :rank] = u[:, :rank] * root
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

    def reset(self, place: int) -> None:
        """A = A0, B = B0."""
        self.A[place] = self.A0[place]
        self.B[place] = self.B0[place]

    def export(self, place: int) -> dict[str, Tensor]:
        """Also the initial factors, without which the base cannot be rebuilt."""
        return {**super().export(place), "A0": self.A0[place], "B0": self.B0[place]}

    def load(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Take all four factors."""
        super().load(tensors, place)
        self.A0[place] = tensors["A0"]
        self.B0[place] = tensors["B0"]


class Dora(LowRank):
    """DoRA: y = bias + m·(W0·x + s·B·A·x)/‖W0 + s·B·A‖ per output row; the norm is held constant.

    ‖W0 + s·B·A‖² = ‖W0‖² + 2s·⟨W0·Aᵀ, B⟩ + s²·B(A·Aᵀ)Bᵀ row by row: no O×I product.

    Source: Liu et al. 2024 (2402.09353), §4.3 for the detached norm.
    """

    weight_OI: Tensor
    weight_norm_O: Tensor

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__(setting)
        num_configs = len(setting.scales)
        self.register_buffer("weight_OI", setting.weight_OI, persistent=False)
        norm_O = torch.linalg.vector_norm(setting.weight_OI.to(setting.trained_dtype), dim=1)
        self.register_buffer("weight_norm_O", norm_O)
        self.magnitude = nn.Parameter(self.weight_norm_O.repeat(num_configs, 1))

    def roles(self) -> dict[Role, nn.Parameter]:
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

    def reset(self, place: int) -> None:
        """A = B = 0 and the base's own norms."""
        super().reset(place)
        self.magnitude[place] = self.weight_norm_O

    def export(self, place: int) -> dict[str, Tensor]:
        """Also the magnitude."""
        return {**super().export(place), "magnitude": self.magnitude[place]}

    def load(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Also the magnitude."""
        super().load(tensors, place)
        self.magnitude[place] = tensors["magnitude"]


class Full(GroupLayer):
    """Full fine-tuning: each configuration trains its own copy of the weight."""

    base_OI: Tensor

    def __init__(self, setting: LayerSetting) -> None:
        super().__init__(setting)
        self.register_buffer("base_OI", setting.weight_OI, persistent=False)
        weight_OI = setting.weight_OI.to(setting.trained_dtype)
        self.weight = nn.Parameter(weight_OI.repeat(len(setting.scales), 1, 1))

    def roles(self) -> dict[Role, nn.Parameter]:
        """The weight."""
        return {"weight": self.weight}

    def forward(self, x_GMI: Tensor, seen_GMI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """W·x + bias; no adapter whose input could drop, no use for the frozen weight."""
        del seen_GMI, weight_OI
        weight_GIO = self.weight.to(x_GMI.dtype).mT
        return torch.bmm(x_GMI, weight_GIO) if bias_O is None else torch.baddbmm(bias_O, x_GMI, weight_GIO)

    def reset(self, place: int) -> None:
        """W = W0."""
        self.weight[place] = self.base_OI

    def squared_norms(self) -> dict[str, Tensor]:
        """``update_norm``."""
        return {"update_norm": (self.weight - self.base_OI).double().square().sum((1, 2))}

    def export(self, place: int) -> dict[str, Tensor]:
        """The weight."""
        return {"weight": self.weight[place]}

    def load(self, tensors: Mapping[str, Tensor], place: int) -> None:
        """Take the weight."""
        self.weight[place] = tensors["weight"]


GROUP_LAYERS: dict[str, type[GroupLayer]] = {
    "lora": LowRank,
    "rslora": LowRank,
    "lora-alpha": LowRank,
    "lora+": LowRank,
    "lora-fa": LowRank,
    "pissa": Pissa,
    "dora": Dora,
    "full": Full,
}
