"""How the built-in bases are pre-trained: one recorded recipe, one loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_alpha.workloads.base import Progress


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a base besides its network and its data; part of the cache key.

    Attributes:
        steps: Optimiser steps of AdamW.
        batch_size: Examples per step.
        lr: Peak learning rate: linear warm-up over 5 % of the steps, then a cosine to 0.
        weight_decay: Decoupled weight decay.
        seed: Seed of the initial weights and of the data order.
        version: Raised whenever code that changes the result changes.
    """

    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    seed: int = 0
    version: int = 1


def pretrain(
    model: nn.Module, loss_at: Callable[[int], Tensor], *, recipe: Recipe, label: str
) -> Iterator[Progress]:
    """Train all of ``model`` in place, yielding progress about a hundred times.

    Args:
        model: Trained in full.
        loss_at: Step (0-based) → mean loss of that step's batch.
        recipe: Steps and optimiser settings.
        label: What the progress bar says.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    warmup = max(1, recipe.steps // 20)
    every = max(1, recipe.steps // 100)
    for step in range(recipe.steps):
        if step % every == 0:
            yield Progress(label, step, recipe.steps)
        factor = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        optimizer.zero_grad(set_to_none=True)
        loss_at(step).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    yield Progress(label, recipe.steps, recipe.steps)
