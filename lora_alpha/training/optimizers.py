"""Optimisers whose learning rate, ε and weight decay belong to a configuration and a factor.

Configurations that agree on these numbers lie side by side (``pack_order``), so each parameter tensor is cut
into few contiguous slices and one fused call updates all slices that share their numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_alpha.errors import WorkloadError
from lora_alpha.models.packed import PackedAdapters
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training import multi_tensor


@dataclass(frozen=True)
class Numbers:
    """What an update of one factor of one configuration uses."""

    lr: float
    eps: float
    weight_decay: float


@dataclass(frozen=True)
class Slice:
    """Rows ``start … stop-1`` of parameter number ``parameter``."""

    parameter: int
    start: int
    stop: int


def numbers_for(configuration: Configuration, role: str, train: TrainSpec) -> Numbers:
    """lr, ε and decay of one factor: the three ratios of the configuration apply to B alone."""
    if role == "B":
        return Numbers(
            lr=configuration.lr * configuration.lr_ratio,
            eps=train.eps * configuration.eps_ratio,
            weight_decay=train.weight_decay * configuration.weight_decay_ratio,
        )
    return Numbers(lr=configuration.lr, eps=train.eps, weight_decay=train.weight_decay)


class PackedOptimizer:
    """Common part: parameters, their slices by numbers, gradient norms and clipping per configuration.

    A configuration that is frozen is left out of all slices: its parameters never change again.
    """

    def __init__(self, adapters: PackedAdapters, train: TrainSpec) -> None:
        self.train = train
        self.num_configs = adapters.num_configs
        self.configurations = adapters.configurations
        self.parameters: list[nn.Parameter] = []
        self.roles: list[str] = []
        self.starts: list[int] = []
        self.names: list[str] = []
        for name, group, layer in adapters.group_layers():
            for role, parameter in layer.roles().items():
                self.names.append(name)
                self.parameters.append(parameter)
                self.roles.append(role)
                self.starts.append(group.start)
        self._spans: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (start, parameter) in enumerate(zip(self.starts, self.parameters, strict=True)):
            self._spans[start, start + len(parameter)].append(index)
        self.frozen: set[int] = set()
        self._slices = self._cut()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def freeze(self, pack_index: int) -> None:
        """Exclude one configuration from all further updates."""
        self.frozen.add(pack_index)
        self._slices = self._cut()

    @torch.no_grad()
    def gradient_norms(self) -> Tensor:
        """‖gradient‖ of each configuration over all its factors, (N,) in the training dtype.

        Parameters of the same configurations are taken together: K of them, G configurations.
        """
        gradients = self._gradients()
        squares_N = gradients[0].new_zeros(self.num_configs)
        for (start, stop), members in self._spans.items():
            own = [gradients[index] for index in members]
            if stop == start + 1:
                norms_KG = torch.stack(multi_tensor.norms(own))[:, None]
            else:
                norms_KG = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in own])
            squares_N[start:stop] += norms_KG.square().sum(0)
        return squares_N.sqrt()

    @torch.no_grad()
    def clip(self, norms_N: Tensor, limit: float) -> None:
        """Scale each configuration's gradient so that its own norm is at most ``limit``."""
        factor_N = (limit / (norms_N + 1e-6)).clamp(max=1.0)
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            assert parameter.grad is not None
            factor_G = factor_N[start : start + len(parameter)]
            parameter.grad.mul_(factor_G.view(-1, *[1] * (parameter.ndim - 1)))

    def _cut(self) -> dict[Numbers, list[Slice]]:
        slices: dict[Numbers, list[Slice]] = defaultdict(list)
        for index, (parameter, role, first) in enumerate(
            zip(self.parameters, self.roles, self.starts, strict=True)
        ):
            run: tuple[Numbers, int] | None = None
            for group_index in range(len(parameter) + 1):
                pack_index = first + group_index
                ended = group_index == len(parameter) or pack_index in self.frozen
                numbers = None if ended else numbers_for(self.configurations[pack_index], role, self.train)
                if run is not None and numbers != run[0]:
                    slices[run[0]].append(Slice(index, run[1], group_index))
                    run = None
                if run is None and numbers is not None:
                    run = (numbers, group_index)
        return dict(slices)

    def _rows(self, tensors: Sequence[Tensor], slices: Sequence[Slice]) -> list[Tensor]:
        return [tensors[cut.parameter][cut.start : cut.stop] for cut in slices]

    def _gradients(self) -> list[Tensor]:
        gradients = [parameter.grad for parameter in self.parameters]
        found = [gradient for gradient in gradients if gradient is not None]
        if len(found) < len(gradients):
            raise WorkloadError(self._unused())
        return found

    def _unused(self) -> str:
        """What to say where the loss did not reach an adapter: to train on would be to train less."""
        names = zip(self.names, self.parameters, strict=True)
        missing = list(dict.fromkeys(name for name, parameter in names if parameter.grad is None))
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        return (
            f"the loss does not depend on {len(missing)} of the adapted layers ({shown}): "
            "leave them out of the targets"
        )

    def step(self, factor: float) -> None:
        """Update with every learning rate multiplied by ``factor``."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What ``load_state`` needs to continue bitwise."""
        return {"frozen": sorted(self.frozen)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo ``state``."""
        self.frozen = set(state["frozen"])
        self._slices = self._cut()


class PackedAdamW(PackedOptimizer):
    """AdamW with decoupled weight decay, formula and order of operations of ``torch.optim.AdamW``.

    Source: Loshchilov & Hutter 2019 (1711.05101), algorithm 2.
    """

    def __init__(self, adapters: PackedAdapters, train: TrainSpec) -> None:
        super().__init__(adapters, train)
        self.exp_avgs = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.exp_avg_sqs = [torch.zeros_like(parameter) for parameter in self.parameters]
        device = self.parameters[0].device
        self.count = torch.zeros((), dtype=torch.float32, device=device)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One fused call per distinct (lr, ε, decay)."""
        self.count += 1
        gradients = self._gradients()
        for numbers, slices in self._slices.items():
            multi_tensor.adamw_(
                self._rows(self.parameters, slices),
                self._rows(gradients, slices),
                self._rows(self.exp_avgs, slices),
                self._rows(self.exp_avg_sqs, slices),
                count=self.count,
                lr=numbers.lr * factor,
                betas=self.train.betas,
                weight_decay=numbers.weight_decay,
                eps=numbers.eps,
            )

    def state(self) -> dict[str, Any]:
        """Moments, step count and frozen configurations."""
        return {
            **super().state(),
            "exp_avgs": [tensor.clone() for tensor in self.exp_avgs],
            "exp_avg_sqs": [tensor.clone() for tensor in self.exp_avg_sqs],
            "count": self.count.clone(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo ``state``."""
        super().load_state(state)
        for own, saved in zip(self.exp_avgs, state["exp_avgs"], strict=True):
            own.copy_(saved)
        for own, saved in zip(self.exp_avg_sqs, state["exp_avg_sqs"], strict=True):
            own.copy_(saved)
        self.count.copy_(state["count"])


class PackedSGD(PackedOptimizer):
    """Plain gradient descent, w ← w − η·(g + λ·w); no momentum, so that δ is the gradient itself."""

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One multi-tensor call per distinct (lr, decay)."""
        gradients = self._gradients()
        for numbers, slices in self._slices.items():
            parameters = self._rows(self.parameters, slices)
            lr = numbers.lr * factor
            if numbers.weight_decay:
                multi_tensor.multiply_(parameters, 1 - lr * numbers.weight_decay)
            multi_tensor.add_(parameters, self._rows(gradients, slices), factor=-lr)


def make_optimizer(adapters: PackedAdapters, train: TrainSpec) -> PackedOptimizer:
    """The optimiser that ``train`` names."""
    return PackedAdamW(adapters, train) if train.optimizer == "adamw" else PackedSGD(adapters, train)
