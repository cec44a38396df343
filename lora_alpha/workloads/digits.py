"""``digits``: a classifier of real handwriting learns other labels, or turned images.

Shapes: N configurations, B examples, 64 pixels, 10 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.catalog.builtin import DigitsOptions
from lora_alpha.workloads.base import Batch
from lora_alpha.workloads.counter_rng import indices
from lora_alpha.workloads.pretrained import PretrainedWorkload
from lora_alpha.workloads.pretraining import Recipe

NUM_CLASSES = 10
HELD_OUT = 360  # a fifth of the 1,797 images
SPLIT_SEED = 0


class DigitsWorkload(PretrainedWorkload):
    """The base knows the digits; the target is y → 3y + 7 mod 10, or the images turned by 90°."""

    name = "digits"
    recipe = Recipe(steps=400, batch_size=64, lr=2e-3)

    def __init__(self, options: DigitsOptions) -> None:
        super().__init__()
        self.options = options
        images, labels = _digits()
        order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
        held_out, train = order[:HELD_OUT], order[HELD_OUT:]
        self._train_set = (torch.from_numpy(images[train]), torch.from_numpy(labels[train]))
        self._held_out = (torch.from_numpy(images[held_out]), torch.from_numpy(labels[held_out]))

    def make_network(self) -> nn.Module:
        """64-W-W-W-10 with ReLU."""
        width = self.options.width
        sizes = [(64, width), (width, width), (width, width), (width, NUM_CLASSES)]
        layers: list[nn.Module] = []
        for inputs, outputs in sizes:
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def base_inputs(self) -> dict[str, Any]:
        """The width decides the base; the target task does not."""
        return {"width": self.options.width, "held_out": HELD_OUT, "split_seed": SPLIT_SEED}

    def source_loss(self, model: nn.Module, *, step: int) -> Tensor:
        """Cross-entropy on the original labels."""
        images, labels = self._train_set
        rows = indices(
            [self.recipe.seed], step=step, count=self.recipe.batch_size, high=len(labels), stream=1
        )
        index = torch.from_numpy(rows[0])
        return F.cross_entropy(model(images[index]), labels[index])

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Images (N·B, 64) and target labels (N·B,)."""
        weight = next(model.parameters())
        images, labels = self._target(*self._train_set)
        rows = indices(seeds, step=step, count=batch_size, high=len(labels)).reshape(-1)
        index = torch.from_numpy(rows)
        return {"images": images[index].to(weight), "labels": labels[index].to(weight.device)}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Cross-entropy of each configuration, nats per image."""
        return _cross_entropy(model(batch["images"]), batch["labels"], num_configs)

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """Held-out cross-entropy and accuracy on the target; ``forgetting_loss`` on the original task."""
        weight = next(model.parameters())
        source, source_labels = self._held_out
        target, target_labels = self._target(source, source_labels)
        labels = target_labels.repeat(num_configs).to(weight.device)
        logits = model(target.repeat(num_configs, 1).to(weight))
        right = (logits.argmax(1) == labels).to(logits.dtype).view(num_configs, -1)
        if self.options.task == "rotated":
            logits_before = model(source.repeat(num_configs, 1).to(weight))
        else:
            logits_before = logits
        before = source_labels.repeat(num_configs).to(weight.device)
        return {
            "eval_loss": _cross_entropy(logits, labels, num_configs),
            "accuracy": right.mean(1),
            "forgetting_loss": _cross_entropy(logits_before, before, num_configs),
        }

    def _target(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.options.task == "permuted":
            return images, (3 * labels + 7) % NUM_CLASSES
        return images.view(-1, 8, 8).rot90(1, (1, 2)).reshape(-1, 64), labels


def _digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    images = (bunch.data / 8.0 - 1.0).astype(np.float32)  # pixels run from 0 to 16
    return images, bunch.target.astype(np.int64)


def _cross_entropy(logits: Tensor, labels: Tensor, num_configs: int) -> Tensor:
    losses = F.cross_entropy(logits, labels, reduction="none")
    return losses.view(num_configs, -1).mean(1)
