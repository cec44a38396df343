"""Records signal, drift and purity of chosen optimiser steps of a pack.

Shapes: N configurations, G configurations of one group, M rows per configuration, I in, O out, R rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_alpha.dynamics.purity import Descent, descent, gradient_norms, purity_metrics
from lora_alpha.dynamics.signal_drift import StepStatistics, layered_metrics, step_statistics
from lora_alpha.models.group_layer import GroupLayer
from lora_alpha.models.packed import PackedAdapters, PackedLinear, linear_weight

Metrics = dict[str, Tensor]


class DynamicsRecorder:
    """Watches single optimiser steps of a pack: ``with recorder.watch(): forward, backward, step``.

    Made before training, whose start it takes for A0 and B0. While it watches it keeps each adapted layer's
    inputs, output gradients and factors before the step; at other steps it costs nothing. Where the loss sees
    more than the factors (DoRA's magnitude) purity is left out (NaN); where the weight itself trains there
    is a signal (the whole step), no drift, and no stable rank.
    """

    def __init__(self, adapters: PackedAdapters) -> None:
        self._adapters = adapters
        self._start = [_start(layer) for _, _, layer in adapters.group_layers()]
        self._inputs: dict[str, list[Tensor]] = defaultdict(list)
        self._gradients: dict[str, list[Tensor]] = defaultdict(list)
        self.metrics: Metrics = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around one training step; afterwards ``metrics`` holds its statistics, (N,) in pack order."""
        hooks = [
            layer.register_forward_hook(partial(self._keep, name))
            for name, layer in self._adapters.layers.items()
        ]
        before = [_moving(layer) for _, _, layer in self._adapters.group_layers()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self.metrics = self._measure(before)
        self._inputs.clear()
        self._gradients.clear()

    def _keep(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, PackedLinear)
        # Sampling and other passes without a gradient are no part of the loss.
        if output.requires_grad and module.enabled:
            rows = (module.num_configs, -1)
            # Gradients arrive in reverse order of the calls; their index keeps them beside their inputs. An
            # output that the loss does not see gets none: its gradient is zero.
            call_index = len(self._inputs[name])
            self._inputs[name].append(inputs[0].detach().reshape(*rows, inputs[0].shape[-1]))
            nothing = output.new_zeros(()).expand(output.shape)
            self._gradients[name].append(nothing.reshape(*rows, output.shape[-1]))

            def keep_gradient(gradient: Tensor) -> None:
                self._gradients[name][call_index] = gradient.detach().reshape(*rows, gradient.shape[-1])

            output.register_hook(keep_gradient)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _measure(self, before: list[tuple[Tensor, ...]]) -> Metrics:
        num_configs = self._adapters.num_configs
        steps: dict[str, StepStatistics] = {}
        descents: dict[str, Descent] = {}
        inputs = {name: torch.cat(parts, dim=1) for name, parts in self._inputs.items()}
        gradients = {name: torch.cat(parts, dim=1) for name, parts in self._gradients.items()}
        norms = {name: gradient_norms(inputs[name], gradients[name]) for name in inputs}
        for (name, group, layer), earlier, start in zip(
            self._adapters.group_layers(), before, self._start, strict=True
        ):
            rows = slice(group.start, group.stop)
            tokens = _Tokens(inputs[name][rows], gradients[name][rows], norms[name][rows])
            if start is None:
                frozen_OI = linear_weight(self._adapters.layers[name].base)
                statistics, against = _measure_weight(layer, earlier[0], frozen_OI, tokens)
            else:
                statistics, against = _measure_product(layer, earlier, start, tokens)
            if name not in steps:
                steps[name] = _blank(StepStatistics, num_configs, like=statistics.step_norm)
                descents[name] = _blank(Descent, num_configs, like=statistics.step_norm)
            _fill(steps[name], statistics, rows)
            _fill(descents[name], against, rows)
        return layered_metrics(steps) | purity_metrics(descents)


@dataclass(frozen=True)
class _Tokens:
    """A layer's inputs (G, M, I), output gradients (G, M, O), and the norm of the weight's gradient (G,)."""

    inputs: Tensor
    gradients: Tensor
    gradient_norm: Tensor


def _moving(layer: GroupLayer) -> tuple[Tensor, ...]:
    """Copies of A and B, or of the weights where there is no product."""
    tensors = layer.product() or (layer.dense_weight(),)
    return tuple(tensor.detach().clone() for tensor in tensors)


def _start(layer: GroupLayer) -> tuple[Tensor, Tensor | None] | None:
    """A0 and B0, None for a B0 of zeros; None where there is no product."""
    product = layer.product()
    if product is None:
        return None
    lora_A, lora_B = (factor.detach().clone() for factor in product)
    return lora_A, lora_B if bool(lora_B.any()) else None


def _measure_product(
    layer: GroupLayer,
    earlier: tuple[Tensor, ...],
    start: tuple[Tensor, Tensor | None],
    tokens: _Tokens,
) -> tuple[StepStatistics, Descent]:
    now = layer.product()
    assert now is not None
    lora_A, lora_B = earlier
    delta_A, delta_B = now[0] - lora_A, now[1] - lora_B
    scale_G = layer.effective_scale_G
    statistics = step_statistics(lora_A, lora_B, delta_A, delta_B, scale_G, A0=start[0], B0=start[1])
    if not layer.has_purity:
        return statistics, _unknown(statistics)
    against = descent(
        tokens.inputs,
        tokens.gradients,
        lora_A=lora_A,
        lora_B=lora_B,
        delta_A=delta_A,
        delta_B=delta_B,
        scale=scale_G,
        step_norm=statistics.step_norm,
        gradient_norm=tokens.gradient_norm,
    )
    return statistics, against


def _measure_weight(
    layer: GroupLayer, earlier_GOI: Tensor, frozen_OI: Tensor, tokens: _Tokens
) -> tuple[StepStatistics, Descent]:
    weight_GOI = layer.dense_weight()
    step_GOI = weight_GOI - earlier_GOI
    step_norm = step_GOI.flatten(1).double().norm(dim=1)
    update_norm = (weight_GOI - frozen_OI).flatten(1).double().norm(dim=1)
    nothing, unknown = torch.zeros_like(step_norm), torch.full_like(step_norm, torch.nan)
    statistics = StepStatistics(
        signal_norm=step_norm,
        drift_norm=nothing,
        step_norm=step_norm,
        change_A=unknown,
        norm_A0=unknown,
        update_norm=update_norm,
        stable_rank=unknown,
    )
    if not layer.has_purity:
        return statistics, _unknown(statistics)
    inner = (tokens.gradients * torch.bmm(tokens.inputs, step_GOI.mT)).double().sum(dim=(1, 2))
    return statistics, Descent(inner, tokens.gradient_norm, step_norm)


def _unknown(statistics: StepStatistics) -> Descent:
    nan_G = torch.full_like(statistics.step_norm, torch.nan)
    return Descent(nan_G, nan_G, nan_G)


def _blank(kind: type[Any], size: int, *, like: Tensor) -> Any:
    return kind(**{field.name: like.new_full((size,), torch.nan) for field in fields(kind)})


def _fill(whole: Any, part: Any, rows: slice) -> None:
    for field in fields(whole):
        getattr(whole, field.name)[rows] = getattr(part, field.name)
