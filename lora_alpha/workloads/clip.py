"""``clip``: image–text contrastive learning on pictures of two handwritten digits and their captions.

A picture shows two of scikit-learn's digits side by side; its caption names them, ``left seven right
three``. The base knows that phrasing; the target rephrases the caption (``right three left seven``),
turns the pictures upside down, or does both.

Shapes: N configurations, B pairs, R = N·B, P patches, X pixels a patch, T caption words, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lora_alpha.catalog.builtin_image import ClipOptions
from lora_alpha.models.dual_encoder import DualEncoder
from lora_alpha.workloads.base import Batch
from lora_alpha.workloads.counter_rng import indices
from lora_alpha.workloads.pretrained import PretrainedWorkload
from lora_alpha.workloads.pretraining import Recipe

SIDE, PATCH = 8, 4
NUM_PATCHES, PATCH_PIXELS = 2 * (SIDE // PATCH) ** 2, PATCH * PATCH
LEFT, RIGHT, VOCABULARY, CAPTION_LENGTH = 10, 11, 12, 4
NUM_CAPTIONS = 100
HELD_OUT_SHARE = 4  # one digit image in so many is never trained on


class ClipWorkload(PretrainedWorkload):
    """Contrastive learning of a new phrasing, a new view, or both."""

    name = "clip"

    def __init__(self, options: ClipOptions) -> None:
        super().__init__()
        self.options = options
        self.recipe = Recipe(steps=options.pretrain_steps, batch_size=64, lr=2e-3)
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        self._images = torch.from_numpy((digits.images[order] / 8.0 - 1.0).astype(np.float32))
        self._labels = torch.from_numpy(digits.target[order].astype(np.int64))
        self._num_held_out = len(order) // HELD_OUT_SHARE
        self._held_out = self._held_out_images()
        self._every_label = torch.stack(
            [torch.arange(NUM_CAPTIONS) // 10, torch.arange(NUM_CAPTIONS) % 10], dim=1
        )

    def make_network(self) -> nn.Module:
        """A vision transformer of 8 patches and a text transformer of 4 words."""
        return DualEncoder(
            patch_pixels=PATCH_PIXELS,
            num_patches=NUM_PATCHES,
            vocabulary=VOCABULARY,
            caption_length=CAPTION_LENGTH,
            width=self.options.width,
            image_layers=self.options.image_layers,
            text_layers=self.options.text_layers,
            num_heads=self.options.num_heads,
        )

    def base_inputs(self) -> dict[str, Any]:
        """Sizes; the target does not matter to the base."""
        return self.options.model_dump(mode="json", exclude={"target", "pretrain_steps"})

    def source_loss(self, model: nn.Module, *, step: int) -> Tensor:
        """Contrastive loss of pictures and captions as the base knows them."""
        images, labels = self._draw([self.recipe.seed], step=step, count=self.recipe.batch_size, stream=0)
        return self._losses(model, images, labels, "source", num_configs=1).mean()

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Pixels ``images`` (R, 8, 16) of fresh pairs of digits and their ``labels`` (R, 2)."""
        images, labels = self._draw(seeds, step=step, count=batch_size, stream=1)
        reference = next(model.parameters())
        return {"images": images.to(reference), "labels": labels.to(reference.device)}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Contrastive loss within each configuration's batch, nats per pair, (N,)."""
        return self._losses(
            model, batch["images"], batch["labels"], self.options.target, num_configs=num_configs
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss``, ``forgetting_loss`` and ``accuracy`` (right caption for a picture), each (N,).

        One held-out picture for each of the 100 captions, scored against all captions.
        """
        reference = next(model.parameters())
        images = self._held_out.to(reference).repeat(num_configs, 1, 1)
        labels = self._every_label.to(reference.device).repeat(num_configs, 1)
        logits = self._logits(model, images, labels, self.options.target, num_configs=num_configs)
        same = torch.eye(NUM_CAPTIONS, device=logits.device, dtype=logits.dtype).expand_as(logits)
        source = self._logits(model, images, labels, "source", num_configs=num_configs)
        return {
            "eval_loss": contrastive_losses(logits, same),
            "forgetting_loss": contrastive_losses(source, same),
            "accuracy": (logits.argmax(-1) == torch.arange(NUM_CAPTIONS, device=logits.device))
            .to(logits.dtype)
            .mean(1),
        }

    def _draw(self, seeds: Sequence[int], *, step: int, count: int, stream: int) -> tuple[Tensor, Tensor]:
        drawn = indices(
            seeds, step=step, count=2 * count, high=len(self._images) - self._num_held_out, stream=stream
        )
        chosen = torch.from_numpy(drawn.reshape(-1, 2)) + self._num_held_out
        return _side_by_side(self._images[chosen]), self._labels[chosen]

    def _held_out_images(self) -> Tensor:
        """One picture for each caption, (100, 8, 16), from images that training never draws."""
        pool = self._labels[: self._num_held_out]
        by_digit = [torch.nonzero(pool == digit).flatten() for digit in range(10)]
        chosen = torch.tensor(
            [
                [
                    by_digit[left][right % len(by_digit[left])],
                    by_digit[right][(left + 10) % len(by_digit[right])],
                ]
                for left in range(10)
                for right in range(10)
            ]
        )
        return _side_by_side(self._images[chosen])

    def _losses(
        self, model: nn.Module, images: Tensor, labels: Tensor, target: str, *, num_configs: int
    ) -> Tensor:
        logits = self._logits(model, images, labels, target, num_configs=num_configs)
        caption = (labels[:, 0] * 10 + labels[:, 1]).view(num_configs, -1)
        same = (caption[:, :, None] == caption[:, None, :]).to(logits.dtype)
        return contrastive_losses(logits, same)

    def _logits(
        self, model: nn.Module, images: Tensor, labels: Tensor, target: str, *, num_configs: int
    ) -> Tensor:
        """Scaled cosine similarity of every image (rows) and caption (columns), (N, B, B)."""
        if target in {"upside-down", "both"}:
            images = images.flip(1)
        captions = _captions(labels, turned=target in {"rephrased", "both"})
        image_RD, text_RD = model(_patches(images), captions)
        width = image_RD.shape[-1]
        image_NBD, text_NBD = image_RD.view(num_configs, -1, width), text_RD.view(num_configs, -1, width)
        return model.get_parameter("log_scale").exp() * torch.bmm(image_NBD, text_NBD.transpose(1, 2))


def contrastive_losses(logits: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross-entropy, (N,), from logits and a 0/1 matrix of matches, both (N, B, B).

    Pairs with equal captions are all matches of each other and share the weight.

    Source: Radford et al. 2021 (2103.00020); several positives as in Yang et al. 2022 (2204.03610).
    """
    weights = same / same.sum(-1, keepdim=True)
    by_image = -(weights * logits.log_softmax(-1)).sum(-1).mean(1)
    by_caption = -(weights * logits.transpose(1, 2).log_softmax(-1)).sum(-1).mean(1)
    return 0.5 * (by_image + by_caption)


def _side_by_side(images: Tensor) -> Tensor:
    """(R, 2, 8, 8) → (R, 8, 16)."""
    return torch.cat([images[:, 0], images[:, 1]], dim=-1)


def _patches(images: Tensor) -> Tensor:
    """(R, 8, 16) → (R, P, X) patches of 4×4 pixels."""
    cut = images.reshape(-1, SIDE // PATCH, PATCH, 2 * SIDE // PATCH, PATCH)
    return cut.transpose(2, 3).reshape(-1, NUM_PATCHES, PATCH_PIXELS)


def _captions(labels: Tensor, *, turned: bool) -> Tensor:
    """``left a right b``, or ``right b left a``, (R, T) word numbers."""
    left, right = torch.full_like(labels[:, 0], LEFT), torch.full_like(labels[:, 0], RIGHT)
    words = [left, labels[:, 0], right, labels[:, 1]]
    return torch.stack(words[2:] + words[:2] if turned else words, dim=1)
