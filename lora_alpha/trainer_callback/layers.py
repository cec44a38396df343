"""What a PEFT model trains: its adapted layers, its configuration, and each step's signal and drift.

PEFT itself is not imported: a layer is known by the attributes that hold its adapters.

Shapes: L layers of equal shape, r rank, I in, O out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from lora_alpha.dynamics.signal_drift import StepStatistics, combine_layers, step_statistics
from lora_alpha.methods import recognised_method

PREFIX = "base_model.model."
FROM_THE_START = ("rel_change_A", "update_norm", "stable_rank")


@dataclass(frozen=True)
class AdaptedLayer:
    """One layer's active adapter; ``scale`` is PEFT's run-time truth, ``layer.scaling[adapter]``."""

    name: str
    rank: int
    alpha: float
    scale: float
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    has_magnitude: bool


def adapted_layers(model: nn.Module) -> list[AdaptedLayer]:
    """Linear layers with an active LoRA adapter, in the model's order; empty for a model without any."""
    layers = []
    for path, module in model.named_modules():
        if not (hasattr(module, "scaling") and hasattr(module, "lora_A")):
            continue
        adapter = next((name for name in module.active_adapters if name in module.lora_A), None)
        if adapter is None:
            continue
        layers.append(
            AdaptedLayer(
                name=path.partition(PREFIX)[2] or path,
                rank=int(module.r[adapter]),
                alpha=float(module.lora_alpha[adapter]),
                scale=float(module.scaling[adapter]),
                lora_A=module.lora_A[adapter].weight,
                lora_B=module.lora_B[adapter].weight,
                has_magnitude=adapter in getattr(module, "lora_magnitude_vector", ()),
            )
        )
    return layers


def describe(
    layers: Sequence[AdaptedLayer], *, peft_config: Mapping[str, Any] | None, optimizer: Any
) -> dict[str, Any]:
    """Method, rank, α, scale and lr ratio as fields of an ingested run; ``full`` where nothing is adapted.

    Rank, α and scale are those of most layers; ``layers`` has the scales that differ.
    """
    if not layers:
        return {"method": recognised_method(None).name}
    ratio = _lr_ratio(layers, optimizer)
    scale = _most_common(layer.scale for layer in layers)
    return {
        "method": _method(layers, peft_config or {}, ratio),
        "rank": _most_common(layer.rank for layer in layers),
        "alpha": _most_common(layer.alpha for layer in layers),
        "scale": scale,
        "lr_ratio": ratio,
        "layers": {layer.name: layer.scale for layer in layers if layer.scale != scale},
    }


class DriftWatch:
    """Signal and drift of chosen optimiser steps, all layers of equal shape at once.

    ``before`` copies A and B, ``after`` compares. Made at the start of training, whose A and B it takes for
    A0 and B0; a training that goes on from a checkpoint does not know them (``resumed``) and leaves out the
    statistics that need them.
    """

    def __init__(self, layers: Sequence[AdaptedLayer], *, resumed: bool) -> None:
        groups: dict[tuple[Any, ...], list[AdaptedLayer]] = {}
        for layer in layers:
            shape = (layer.lora_A.shape, layer.lora_B.shape, layer.lora_A.device, layer.lora_A.dtype)
            groups.setdefault(shape, []).append(layer)
        self._groups = list(groups.values())
        self._resumed = resumed
        self._start = [_stacked(group) for group in self._groups]
        self._starts_at_zero = [not bool(lora_B.any()) for _, lora_B in self._start]
        self._scales = [
            torch.tensor([layer.scale for layer in group], device=group[0].lora_A.device)
            for group in self._groups
        ]
        self._before: list[tuple[Tensor, Tensor]] | None = None

    def before(self) -> None:
        """Remember the factors as they are."""
        self._before = [_stacked(group) for group in self._groups]

    @torch.no_grad()
    def after(self) -> dict[str, Tensor]:
        """Statistics of the step since ``before``, over all layers; empty without a ``before``."""
        if self._before is None:
            return {}
        parts = []
        for group, before, start, at_zero, scale in zip(
            self._groups, self._before, self._start, self._starts_at_zero, self._scales, strict=True
        ):
            lora_A, lora_B = _stacked(group)
            parts.append(
                step_statistics(
                    before[0],
                    before[1],
                    lora_A - before[0],
                    lora_B - before[1],
                    scale,
                    A0=start[0],
                    B0=None if at_zero else start[1],
                )
            )
        self._before = None
        device = self._scales[0].device
        metrics = combine_layers([layer for part in parts for layer in _split(part, device)]).metrics()
        return {
            name: value for name, value in metrics.items() if not (self._resumed and name in FROM_THE_START)
        }


def can_watch(layers: Sequence[AdaptedLayer]) -> bool:
    """Whether this process holds whole factors: sharded training keeps pieces of them only."""
    return bool(layers) and all(
        layer.lora_A.ndim == 2 and layer.lora_A.shape[0] == layer.rank == layer.lora_B.shape[-1]
        for layer in layers
    )


def _stacked(group: Sequence[AdaptedLayer]) -> tuple[Tensor, Tensor]:
    """A (L, r, I) and B (L, O, r), copied."""
    return (
        torch.stack([layer.lora_A.detach() for layer in group]),
        torch.stack([layer.lora_B.detach() for layer in group]),
    )


def _split(part: StepStatistics, device: torch.device) -> list[StepStatistics]:
    columns = [getattr(part, field.name).to(device).unbind(0) for field in fields(StepStatistics)]
    return [StepStatistics(*values) for values in zip(*columns, strict=True)]


def _method(layers: Sequence[AdaptedLayer], config: Mapping[str, Any], ratio: float) -> str:
    # The layers' own truth, also where no configuration is at hand.
    seen = {"use_dora": True} if any(layer.has_magnitude for layer in layers) else {}
    trains_A = any(layer.lora_A.requires_grad for layer in layers)
    return recognised_method({**config, **seen}, trains_A=trains_A, lr_ratio=ratio).name


def _lr_ratio(layers: Sequence[AdaptedLayer], optimizer: Any) -> float:
    """The lr of B over that of A, from the optimiser's groups; 1 where they cannot be told."""
    # ``initial_lr`` is the group's own: ``lr`` may be in warm-up, at 0.
    rates = {
        id(parameter): float(group.get("initial_lr", group["lr"]))
        for group in getattr(optimizer, "param_groups", ())
        for parameter in group["params"]
    }
    for layer in layers:
        rate_A, rate_B = rates.get(id(layer.lora_A)), rates.get(id(layer.lora_B))
        if rate_A and rate_B:
            return float(f"{rate_B / rate_A:.12g}")
    return 1.0


def _most_common(values: Any) -> Any:
    return Counter(values).most_common(1)[0][0]
