"""What the built-in workloads with a pre-trained base share: prepare once, build often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_alpha.errors import WorkloadError
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.base_cache import cached_base
from lora_alpha.workloads.pretraining import Recipe, pretrain


class PretrainedWorkload(ABC):
    """A workload whose base is a small network, pre-trained by ``recipe`` and cached.

    A subclass says how the untrained network is made, what decides it besides the recipe, and the loss of a
    pre-training step. ``build_model`` before ``prepare`` is an error: the base would have to be guessed.
    """

    name: str
    recipe: Recipe

    def __init__(self) -> None:
        self._base: dict[str, Tensor] | None = None

    @abstractmethod
    def make_network(self) -> nn.Module:
        """The untrained network; weights come from torch's global generator."""

    @abstractmethod
    def base_inputs(self) -> dict[str, Any]:
        """What decides the base besides the recipe (sizes, data), as JSON."""

    @abstractmethod
    def source_loss(self, model: nn.Module, *, step: int) -> Tensor:
        """Mean loss of pre-training step ``step``, a scalar."""

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Read the base from ``cache_dir`` or pre-train and store it there; nothing the second time."""
        if self._base is not None:
            return
        self._base = yield from cached_base(
            cache_dir,
            name=self.name,
            recipe={**self.base_inputs(), **asdict(self.recipe)},
            make=self.make_network,
            train=self._train,
        )

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The pre-trained base, every parameter frozen.

        Raises:
            WorkloadError: If ``prepare`` has not run to its end.
        """
        if self._base is None:
            raise WorkloadError(
                f"the base of {self.name} is not there yet: run prepare(cache_dir) to its end first"
            )
        with torch.random.fork_rng(devices=[]):
            model = self.make_network()
        model.load_state_dict(self._base)
        return model.requires_grad_(False).to(device=device, dtype=dtype).eval()

    def targets(self, model: nn.Module) -> list[str]:
        """Every linear layer; the head is the embedding's transpose and stays as it is."""
        return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]

    def _train(self, model: nn.Module) -> Iterator[Progress]:
        return pretrain(
            model,
            lambda step: self.source_loss(model, step=step),
            recipe=self.recipe,
            label=f"pre-training the base of {self.name}",
        )
