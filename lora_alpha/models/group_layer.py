"""What every method's layer answers for: a group of configurations inside one adapted layer.

A method's layer is one file beside this one; ``lora_alpha/methods`` says which method has which.

Shapes: G configurations of the group, M rows per configuration, I in features, O out features, R rank.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from lora_alpha.errors import WorkloadError
from lora_alpha.methods import METHODS
from lora_alpha.models.low_rank_product import GroupFactors


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


@dataclass(frozen=True)
class LayerFactors:
    """One configuration's adapter of one layer as a probe sees it, ``W = base + scale·B·A``.

    Attributes:
        A: Shape (R, I), or None for a layer whose whole weight is the point: then ``base`` is that weight.
        B: Shape (O, R), or None likewise.
        scale: Effective scale s.
        base: W0 where it is not the module's own weight (methods that alter it at the start), (O, I).
    """

    A: Tensor | None
    B: Tensor | None
    scale: float = 1.0
    base: Tensor | None = None


class GroupLayer(nn.Module):
    """The adapters of G configurations in one layer. Subclasses say what becomes of the layer's output.

    ``forward(x_GMI, seen_GMI, weight_OI, bias_O)`` gives that output, (G, M, O), from the layer's input, from
    what the adapters see of it (x itself, or x after dropout) and from the frozen layer.

    ``scale_G`` is each configuration's own scale, ``effective_scale_G`` the scale now, α's schedule included;
    both have shape (G,). Parameters have G in front and their own dtype, inputs and outputs that of the base.
    A configuration's output and gradients depend on its own rows and parameters alone, so that a pack trains
    as each of its configurations does by itself.

    Attributes:
        has_purity: Whether the loss sees ``product`` as the change of the weight and nothing else.
    """

    scale_G: Tensor
    effective_scale_G: Tensor
    has_purity = True

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

    def roles(self) -> dict[str, nn.Parameter]:
        """Trained parameters by role; ratios of learning rate, ε and decay apply to the role ``B`` alone."""
        raise NotImplementedError

    def reset(self, group_index: int) -> None:
        """Make configuration ``group_index`` equal the frozen base."""
        raise NotImplementedError

    def squared_norms(self) -> dict[str, Tensor]:
        """Squared Frobenius norms, each (G,) float64; ``update_norm`` at least."""
        raise NotImplementedError

    def product(self) -> tuple[Tensor, Tensor] | None:
        """A (G, R, I) and B (G, O, R) whose steps have a signal and a drift.

        None where there are none: then whole steps of ``dense_weight`` count as signal.
        """
        return None

    def dense_weight(self) -> Tensor:
        """The adapted weights (G, O, I); asked for where ``product`` is None."""
        raise NotImplementedError

    def export(self, group_index: int) -> dict[str, Tensor]:
        """Tensors that describe configuration ``group_index`` completely.

        ``Method.peft_factors`` gets them as arrays, ``probe_factors`` as they are.
        """
        raise NotImplementedError

    def load(self, tensors: Mapping[str, Tensor], group_index: int) -> None:
        """Take what ``export`` gave."""
        raise NotImplementedError

    def start_from(self, given: Mapping[str, Tensor], group_index: int) -> None:
        """Compute what the adapter ``given`` (A, B, scale and ``Method.peft_vectors``) computes.

        Asked of methods with ``takes_adapters`` alone.
        """
        raise NotImplementedError

    @classmethod
    def probe_factors(cls, weight_OI: Tensor, tensors: Mapping[str, Tensor]) -> LayerFactors:
        """The point that exported ``tensors`` are over the frozen ``weight_OI``, in that weight's dtype."""
        raise NotImplementedError


def group_layer(method: str) -> type[GroupLayer]:
    """The layer of a method.

    Raises:
        WorkloadError: If it cannot be imported, or is no ``GroupLayer``.
    """
    return _imported(METHODS[method].layer)


@cache
def _imported(layer: str) -> type[GroupLayer]:
    try:
        found = pkgutil.resolve_name(layer)
    except (ImportError, AttributeError, ValueError) as error:
        raise WorkloadError(
            f"a method names {layer!r} as its layer, which cannot be imported: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, GroupLayer)):
        raise WorkloadError(f"a method names {layer!r} as its layer: it must be a subclass of GroupLayer")
    return found
