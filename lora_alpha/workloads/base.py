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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """Where a long preparation stands: ``done`` of ``total`` units of ``label``."""

    label: str
    done: int
    total: int


class Workload(Protocol):
    """A task: a frozen base model, its training batches, its losses and its held-out metrics.

    A workload may also have ``patterns() -> dict`` (ranks and α of single layers, see
    ``models.packed.inject``), and ``micro_batches(batch, num_configs=N) -> list[Batch]``: parts whose losses
    add up to those of the whole and which go through the model one after the other before one optimiser step.
    """

    name: str

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Make and cache whatever later calls need; yields progress; does nothing the second time."""
        ...

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The base with every parameter frozen, ready for adapters; the same weights on each call."""
        ...

    def targets(self, model: nn.Module) -> list[str]:
        """Qualified names of the linear modules to adapt."""
        ...

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """The examples of step ``step`` (0-based) for N = len(seeds) configurations, N·B rows each.

        ``model`` is the adapted model: reinforcement learning samples from it, others ignore it.
        """
        ...

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Mean training loss per configuration, shape (N,), differentiable."""
        ...

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """Held-out metrics per configuration, each (N,). ``eval_loss`` is required and is what α is
        chosen by; ``forgetting_loss`` (loss on the source task) wherever a source task exists.
        """
        ...
