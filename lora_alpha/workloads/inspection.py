"""What a prepared workload turns out to be: model, layers, data. The checks that need files or torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lora_alpha.models.targets import check_targets, linear_weight
from lora_alpha.workloads.base import Workload

NUM_QUOTED_TARGETS = 8


def inspect_workload(workload: Workload) -> dict[str, Any]:
    """Facts about a prepared workload, JSON-able.

    A workload that knows more than its model (``findings() -> dict``) is asked; it builds what it needs.

    Raises:
        InvalidSpec: If something is found that would stop a run.
    """
    findings = getattr(workload, "findings", None)
    if findings is not None:
        found: dict[str, Any] = findings()
        return found
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    return {**describe_model(model, workload.targets(model)), "warnings": []}


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
