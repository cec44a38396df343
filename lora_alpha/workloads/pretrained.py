"""What the built-in workloads with a pre-trained base share: prepare once, build often."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_alpha.errors import WorkloadError
from lora_alpha.workloads.base import Progress, Workload
from lora_alpha.workloads.base_cache import cached_base
from lora_alpha.workloads.pretraining import Recipe, pretrain


class PretrainedWorkload(Workload):
    """A workload whose base is a small network, pre-trained by ``recipe`` and cached.

    A subclass says how the untrained network is made, what decides it besides the recipe, and the loss of a
    pre-training step. A head that is the embedding's transpose is no ``nn.Linear``: it stays as it is.
    ``build_model`` before ``prepare`` is an error: the base would have to be guessed.
    """

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

    def _train(self, model: nn.Module) -> Iterator[Progress]:
        return pretrain(
            model,
            lambda step: self.source_loss(model, step=step),
            recipe=self.recipe,
            label=f"pre-training the base of {self.name}",
        )
