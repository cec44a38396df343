"""Where a probe is taken: adapters of a configuration before training, or as a run exported them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_alpha.errors import ProbeError
from lora_alpha.methods import METHODS
from lora_alpha.models.group_layer import LayerFactors, group_layer
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
    adapters = inject(model, workload.targets(model), [configuration], **workload.patterns())
    if init_adapter is not None:
        start_from(adapters, init_adapter)
    return adapters.export()[0]


def factors_at(
    model: torch.nn.Module, tensors: LayerTensors, *, method: str, space: ProbeSpace
) -> dict[str, LayerFactors]:
    """Coordinates of a point from exported adapter tensors.

    Args:
        model: The frozen base, in the precision to probe in.
        tensors: Layer → tensors, as the method's ``GroupLayer`` exports them.
        method: The run's method.
        space: Where it is to be probed.

    Raises:
        ProbeError: If the method has no coordinates in that space, or a layer does not exist.
    """
    refusal = METHODS[method].no_lora_space
    if space == "lora" and refusal:
        raise ProbeError(f"{method} has no LoRA coordinates: {refusal}; probe it in space 'full'")
    layer = group_layer(method)
    return {name: layer.probe_factors(_weight(model, name), parts) for name, parts in tensors.items()}


def _weight(model: torch.nn.Module, name: str) -> Tensor:
    try:
        return linear_weight(model.get_submodule(name)).detach()
    except AttributeError:
        raise ProbeError(f"the adapter is for layer {name!r}, which the model does not have") from None
