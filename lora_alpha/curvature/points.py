"""Where a probe is taken: adapters of a configuration before training, or as a run exported them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lora_alpha.curvature.coordinates import LayerFactors
from lora_alpha.errors import ProbeError
from lora_alpha.methods import METHODS
from lora_alpha.models.init_adapter import start_from
from lora_alpha.models.packed import inject, linear_weight
from lora_alpha.spec import Configuration, ProbeSpace
from lora_alpha.workloads.base import Workload

LayerTensors = Mapping[str, Mapping[str, Tensor]]


def tensors_at_start(
    workload: Workload,
    configuration: Configuration,
    *,
    device: torch.device,
    dtype: torch.dtype,
    init_adapter: LayerTensors | None = None,
) -> dict[str, dict[str, Tensor]]:
    """The untrained adapter that the engine gives ``configuration``: layer → tensors as it exports them.

    ``init_adapter`` is the adapter that its sweep starts from, if it names one.
    """
    model = workload.build_model(device=device, dtype=dtype)
    patterns: dict[str, Any] = getattr(workload, "patterns", dict)()
    adapters = inject(model, workload.targets(model), [configuration], **patterns)
    if init_adapter is not None:
        start_from(adapters, init_adapter)
    return adapters.export()[0]


def factors_at(
    model: torch.nn.Module, tensors: LayerTensors, *, method: str, space: ProbeSpace
) -> dict[str, LayerFactors]:
    """Coordinates of a point from exported adapter tensors.

    Args:
        model: The frozen base, in the precision to probe in.
        tensors: Layer → ``A, B, scale`` (PiSSA: also ``A0, B0``; DoRA: ``magnitude``; full: ``weight``).
        method: The run's method.
        space: Where it is to be probed.

    Raises:
        ProbeError: If the method has no coordinates in that space, or a layer does not exist.
    """
    if space == "lora" and not METHODS[method].uses_rank:
        raise ProbeError(f"{method} trains weights, not A and B: probe it in space 'full'")
    if space == "lora" and method == "dora":
        raise ProbeError(
            "dora's coordinates include a magnitude whose norm is held constant while training: its training "
            "loss is not a function of A and B alone; probe it in space 'full'"
        )
    return {name: _layer(model, name, parts) for name, parts in tensors.items()}


def _layer(model: torch.nn.Module, name: str, parts: Mapping[str, Tensor]) -> LayerFactors:
    try:
        base = linear_weight(model.get_submodule(name)).detach()
    except AttributeError:
        raise ProbeError(f"the adapter is for layer {name!r}, which the model does not have") from None
    if "weight" in parts:
        return LayerFactors(None, None, base=parts["weight"].to(base))
    lora_A, lora_B = parts["A"].to(base), parts["B"].to(base)
    scale = float(parts["scale"])
    if "magnitude" in parts:
        direction = base.double() + scale * (lora_B.double() @ lora_A.double())
        length = direction.norm(dim=1, keepdim=True)
        weight = parts["magnitude"].to(direction)[:, None] * direction / length
        return LayerFactors(None, None, base=weight.to(base))
    if "A0" in parts:
        start = scale * (parts["B0"].to(base).double() @ parts["A0"].to(base).double())
        return LayerFactors(lora_A, lora_B, scale, base=(base.double() - start).to(base))
    return LayerFactors(lora_A, lora_B, scale)
