"""What a model and the layers to adapt turn out to be."""

from __future__ import annotations

from typing import Any

from torch import nn

from lora_alpha.models.targets import check_targets, linear_weight

NUM_QUOTED_TARGETS = 8


def describe_model(model: nn.Module, targets: list[str]) -> dict[str, Any]:
    """Parameters of ``model`` (which may live on the meta device) and what adapters on ``targets`` add.

    Raises:
        InvalidSpec: If a target cannot carry an adapter.
    """
    check_targets(model, targets)
    shapes = [tuple(linear_weight(model.get_submodule(name)).shape) for name in targets]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_targets": len(targets),
        "targets": targets[:NUM_QUOTED_TARGETS],
        "adapter_parameters_per_rank": sum(rows + columns for rows, columns in shapes),
    }
