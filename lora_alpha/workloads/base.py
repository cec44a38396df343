"""What a workload gives the engine, and the rules it keeps.

Rows are configuration-major everywhere: a batch of N configurations with B examples each has leading
dimension N·B, and rows ``i·B … (i+1)·B-1`` belong to configuration i.

Rules that exact resume and pairing by seed rest on:
- ``prepare`` is idempotent: it makes whatever is costly (a pre-trained base, a token cache) once, under
  ``cache_dir`` and a content hash, by temporary file and rename.
- ``batch`` is a pure function of (the workload's options, step, seed, and for RL the model's weights): no
  hidden generator state. Two configurations with the same seed see the same examples in the same order.
- ``losses`` and ``evaluate`` never mix configurations: entry i depends on rows of configuration i alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_alpha.workloads.inspection import describe_model

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """Where a long preparation stands: ``done`` of ``total`` units of ``label``."""

    label: str
    done: int
    total: int


class Workload(ABC):
    """A task: a frozen base model, its training batches, its losses and its held-out metrics.

    A subclass is made with its options, those of its catalogue entry, and also with ``roots`` where the entry
    says that it reads files. It writes what is abstract here, and any of the rest where the default does not
    fit.
    """

    name: str

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Make and cache whatever later calls need; yields progress; does nothing the second time.

        By default there is nothing to make.
        """
        del cache_dir
        yield from ()

    @abstractmethod
    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The base with every parameter frozen, ready for adapters; the same weights on each call."""

    def targets(self, model: nn.Module) -> list[str]:
        """Qualified names of the linear modules to adapt; by default every ``nn.Linear``."""
        return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]

    def patterns(self) -> Mapping[str, Any]:
        """Ranks and α of single layers, as ``models.packed.inject`` takes them; by default none."""
        return {}

    @abstractmethod
    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """The examples of step ``step`` (0-based) for N = len(seeds) configurations, N·B rows each.

        ``model`` is the adapted model: reinforcement learning samples from it, others ignore it.
        """

    def micro_batches(self, batch: Batch, *, num_configs: int) -> list[Batch]:
        """Parts of ``batch`` whose losses add up to those of the whole; by default the whole.

        They go through the model one after the other before one optimiser step.
        """
        del num_configs
        return [batch]

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Mean training loss per configuration, shape (N,), differentiable."""

    @abstractmethod
    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """Held-out metrics per configuration, each (N,). ``eval_loss`` is required and is what α is
        chosen by; ``forgetting_loss`` (loss on the source task) wherever a source task exists.
        """

    def new_layers(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Layer → ``weight`` and ``bias`` of layers that ``build_model`` drew itself and no file has.

        An adapter is stored with them: it has no base otherwise. By default there are none.
        """
        return {}

    def findings(self) -> dict[str, Any]:
        """What an inspection shows of the prepared workload, JSON-able, a list ``warnings`` included.

        By default the facts of ``describe_model``, for which the model is built.

        Raises:
            InvalidSpec: If something is found that would stop a run.
        """
        model = self.build_model(device=torch.device("cpu"), dtype=torch.float32)
        return {**describe_model(model, self.targets(model)), "warnings": []}
