"""``mlp``: a ReLU network learns a known low-rank shift of its own weights.

Shapes: N configurations, B examples, W width, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lora_alpha.catalog.builtin import MlpOptions
from lora_alpha.workloads.base import Batch, Workload
from lora_alpha.workloads.counter_rng import indices

NUM_LAYERS = 5
OUT_FEATURES = 32
TRAIN_EXAMPLES = 8192
HELD_OUT_EXAMPLES = 256


class MlpWorkload(Workload):
    """Inputs are standard normal; targets are the outputs of the shifted network.

    The shift of each layer has Frobenius norm ``shift``·‖W0‖. Nothing is pre-trained.
    """

    name = "mlp"

    def __init__(self, options: MlpOptions) -> None:
        self.options = options
        self._data: dict[torch.dtype, tuple[Tensor, ...]] = {}

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The unshifted network, and with it the data on the same device."""
        weights, shifted = self._weights()
        self._data = {dtype: self._make_data(weights, shifted, device=device, dtype=dtype)}
        return _network(weights).to(device=device, dtype=dtype)

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Inputs (N·B, W) and targets (N·B, O)."""
        del model
        inputs, targets = self._tensors()[:2]
        rows = indices(seeds, step=step, count=batch_size, high=TRAIN_EXAMPLES)
        index = torch.from_numpy(rows.reshape(-1)).to(inputs.device)
        return {"inputs": inputs[index], "targets": targets[index]}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Mean squared error of each configuration."""
        error: Tensor = model(batch["inputs"]) - batch["targets"]
        return error.square().reshape(num_configs, -1).mean(1)

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss`` = MSE / base MSE; ``forgetting_loss`` = MSE against the base / base variance."""
        _, _, inputs, targets, base = self._tensors()
        output_NBO = model(inputs.repeat(num_configs, 1)).view(num_configs, *targets.shape)
        base_error = (base - targets).square().mean()
        return {
            "eval_loss": (output_NBO - targets).square().mean((1, 2)) / base_error,
            "forgetting_loss": (output_NBO - base).square().mean((1, 2)) / base.var(),
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        (tensors,) = self._data.values()
        return tensors

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        generator = torch.Generator().manual_seed(self.options.task_seed)
        width = self.options.width
        weights, shifted = [], []
        for layer in range(NUM_LAYERS):
            out = OUT_FEATURES if layer == NUM_LAYERS - 1 else width
            weight = torch.randn(out, width, generator=generator) * math.sqrt(2 / width)
            rank = self.options.shift_rank
            if rank == "full":
                direction = torch.randn(out, width, generator=generator)
            else:
                left = torch.randn(out, rank, generator=generator)
                direction = left @ torch.randn(rank, width, generator=generator)
            direction *= self.options.shift * weight.norm() / direction.norm()
            weights.append(weight)
            shifted.append(weight + direction)
        return weights, shifted

    def _make_data(
        self, weights: list[Tensor], shifted: list[Tensor], *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.options.task_seed + 1)
        count = TRAIN_EXAMPLES + HELD_OUT_EXAMPLES
        inputs = torch.randn(count, self.options.width, generator=generator)
        with torch.no_grad():
            targets = _network(shifted)(inputs)
            base = _network(weights)(inputs[TRAIN_EXAMPLES:])
        tensors = (
            inputs[:TRAIN_EXAMPLES],
            targets[:TRAIN_EXAMPLES],
            inputs[TRAIN_EXAMPLES:],
            targets[TRAIN_EXAMPLES:],
            base,
        )
        return tuple(tensor.to(device=device, dtype=dtype) for tensor in tensors)


def _network(weights: list[Tensor]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, weight in enumerate(weights):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data.copy_(weight)
        layers += [linear, nn.ReLU()] if index < len(weights) - 1 else [linear]
    return nn.Sequential(*layers).requires_grad_(False)
