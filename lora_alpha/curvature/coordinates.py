"""The two coordinate systems in which a Hessian is probed, on one and the same function.

LoRA coordinates are every A and B of the adapted layers; full-weight coordinates are the weights of the
same layers at ``W = W0 + s·B·A``. Both give the same loss at the same point, so that their spectra compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lora_alpha.errors import ProbeError
from lora_alpha.models.group_layer import LayerFactors
from lora_alpha.models.packed import linear_weight

Space = Literal["lora", "full"]


class ProbedLinear(nn.Module):
    """A linear layer whose coordinates are handed in from outside before each forward pass."""

    def __init__(self, linear: nn.Module, factors: LayerFactors, *, space: Space) -> None:
        super().__init__()
        weight_OI = linear_weight(linear).detach()
        base = weight_OI if factors.base is None else factors.base.detach().to(weight_OI)
        self.space = space
        self.scale = factors.scale
        bias = getattr(linear, "bias", None)
        self.bias = None if bias is None else bias.detach()
        self.out_features, self.in_features = weight_OI.shape
        # Registered, because models ask their first parameter for device and dtype.
        self.base = nn.Parameter(base, requires_grad=False)
        if space == "lora":
            if factors.A is None or factors.B is None:
                raise ProbeError("a run without adapters has no LoRA coordinates: probe it in space 'full'")
            self.point = [factors.A.detach().to(base), factors.B.detach().to(base)]
        else:
            self.point = [merged_weight(base, factors)]

    @property
    def weight(self) -> Tensor:
        """The effective weight, (out, in)."""
        if self.space == "full":
            return self.point[0]
        lora_A, lora_B = self.point
        return self.base + self.scale * (lora_B @ lora_A)

    def forward(self, x: Tensor) -> Tensor:
        """``x·Wᵀ + bias``, with the adapter kept factored in LoRA coordinates."""
        if self.space == "full":
            return F.linear(x, self.point[0], self.bias)
        lora_A, lora_B = self.point
        return F.linear(x, self.base, self.bias) + self.scale * F.linear(F.linear(x, lora_A), lora_B)


@dataclass(frozen=True)
class Coordinates:
    """Access to the coordinates of a model whose target layers have been replaced.

    Attributes:
        layers: The replaced modules by qualified name, in the order of the coordinates.
    """

    layers: Mapping[str, ProbedLinear]

    def tensors(self, only: Sequence[str] | None = None) -> list[Tensor]:
        """The coordinate tensors of all layers, or of ``only`` these, as they are now."""
        return [tensor for name in only or self.layers for tensor in self.layers[name].point]

    def assign(self, tensors: Sequence[Tensor], only: Sequence[str] | None = None) -> None:
        """Put ``tensors`` (in the order of :meth:`tensors`) in place."""
        rest = list(tensors)
        for name in only or self.layers:
            layer = self.layers[name]
            count = len(layer.point)
            layer.point, rest = rest[:count], rest[count:]
        assert not rest


@contextmanager
def probed_model(
    model: nn.Module, factors: Mapping[str, LayerFactors], *, space: Space
) -> Iterator[Coordinates]:
    """Replace the layers named in ``factors`` for the duration of the block.

    The model is in ``eval()`` mode inside, so that dropout does not make the Hessian a random one, and
    leaves as it came.

    Raises:
        ProbeError: If a name is unknown, is not a linear layer, or its factors do not fit it.
    """
    if not factors:
        raise ProbeError("no adapted layers to probe: got an empty list of factors")
    modes = {module: module.training for module in model.modules()}
    originals = {name: _linear(model, name, layer) for name, layer in factors.items()}
    layers = {name: ProbedLinear(originals[name], factors[name], space=space) for name in factors}
    try:
        for name, layer in layers.items():
            _replace(model, name, layer)
        model.eval()
        yield Coordinates(layers)
    finally:
        for name, linear in originals.items():
            _replace(model, name, linear)
        for module, training in modes.items():
            module.training = training


def merged_weight(base: Tensor, factors: LayerFactors) -> Tensor:
    """``W = base + s·B·A``, summed in float64 and returned in the base's dtype, (out, in)."""
    if factors.A is None or factors.B is None:
        return base.clone()
    update = factors.scale * (
        factors.B.detach().to(base.device).double() @ factors.A.to(base.device).double()
    )
    return (base.double() + update).to(base.dtype)


def _linear(model: nn.Module, name: str, factors: LayerFactors) -> nn.Module:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise ProbeError(f"the model has no layer {name!r}") from None
    if getattr(module, "weight", None) is None or linear_weight(module).ndim != 2:
        raise ProbeError(f"layer {name!r} is a {type(module).__name__}: only linear layers can be probed")
    out_features, in_features = linear_weight(module).shape
    if factors.A is not None and factors.B is not None:
        given = (*factors.B.shape, *factors.A.shape)
        rank = factors.A.shape[0]
        if given != (out_features, rank, rank, in_features):
            raise ProbeError(
                f"layer {name!r} is {out_features}×{in_features}: its factors are "
                f"B {tuple(factors.B.shape)} and A {tuple(factors.A.shape)}"
            )
    return module


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
