"""``hf-clip``: a dual encoder of transformers learns to match the user's pictures with their captions.

Shapes: N configurations, B pairs each, R = N·B rows, K held-out pairs, D embedding width, T tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from lora_alpha.catalog.huggingface_encoders import DualEncoderOptions
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.clip import contrastive_losses
from lora_alpha.workloads.held_out import CPU_TOKENS, GPU_TOKENS
from lora_alpha.workloads.huggingface.data.batching import drawn_indices, padded_tokens
from lora_alpha.workloads.huggingface.data.captioned_pictures import (
    CaptionedPictures,
    Pairs,
    prepare_captioned_pictures,
)
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.fine_tuning import FineTuningWorkload, ModelFiles
from lora_alpha.workloads.huggingface.held_out_scores import adapters_disabled, repeated
from lora_alpha.workloads.huggingface.model.loading import padding_token
from lora_alpha.workloads.huggingface.problems import problem


class DualEncoderWorkload(FineTuningWorkload[CaptionedPictures]):
    """A model with an image and a text tower, and pictures with captions of the user's own."""

    name = "hf-clip"
    auto_class = AutoModel
    example = ("pair", "pairs")
    text = ("caption", "captions")
    options: DualEncoderOptions

    def __init__(self, options: DualEncoderOptions, *, roots: Roots = None) -> None:
        super().__init__(options, roots=roots)
        self._pad = 0
        self._picture_tokens = 1

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Every pair once an epoch, in each seed's own order.

        Returns:
            ``tokens`` and ``real`` (R, T), ``pixels`` (R, channels, height, width), ``captions`` (R,).
        """
        train = self.data.train
        drawn = drawn_indices(seeds, step=step, count=batch_size, num_examples=len(train)).flatten()
        return self._rows(train, drawn, like=next(model.parameters()))

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Contrastive loss within each configuration's batch, nats per pair, (N,)."""
        image_ND, text_ND = self._embed(model, batch, num_configs=num_configs)
        captions_NB = batch["captions"].view(num_configs, -1)
        return contrastive_losses(_logits(model, image_ND, text_ND), _same(captions_NB, image_ND))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss``, ``accuracy`` (right caption for a picture) and ``forgetting_loss``, each (N,).

        Every held-out picture that is read against every caption. Forgetting is 1 − the mean cosine
        similarity with the frozen base's embeddings.
        """
        like = next(model.parameters())
        held_out = self.data.held_out
        images, texts, captions = [], [], []
        kept = torch.zeros(num_configs, dtype=torch.float64, device=like.device)
        for chosen in self._pieces(num_configs, device=like.device):
            piece = self._rows(held_out, chosen, like=like)
            image_NKD, text_NKD = self._embed(model, repeated(piece, num_configs), num_configs=num_configs)
            with adapters_disabled(model):
                base = self._embed(model, piece, num_configs=1)
            for now, before in zip((image_NKD, text_NKD), base, strict=True):
                kept += (now * before).double().sum((1, 2)) / 2
            images.append(image_NKD)
            texts.append(text_NKD)
            captions.append(piece["captions"])
        image_NKD, text_NKD, caption_K = torch.cat(images, 1), torch.cat(texts, 1), torch.cat(captions)
        logits_NKK = _logits(model, image_NKD, text_NKD)
        same_NKK = _same(caption_K.expand(num_configs, -1), image_NKD)
        best_NK1 = logits_NKK.argmax(-1, keepdim=True)
        return {
            "eval_loss": contrastive_losses(logits_NKK, same_NKK),
            "accuracy": same_NKK.gather(-1, best_NK1).mean((1, 2)),
            "forgetting_loss": 1.0 - kept / len(caption_K),
        }

    def _check_config(self, folder: Path, config: Any) -> None:
        if getattr(config, "vision_config", None) is None or getattr(config, "text_config", None) is None:
            raise problem(
                "model",
                f"{folder} is a {config.model_type} model: give a dual encoder such as CLIP, with a "
                "vision_config and a text_config",
            )

    def _read(self, files: ModelFiles, cache_dir: Path) -> Generator[Progress, None, CaptionedPictures]:
        vision = files.config.vision_config
        side = int(getattr(vision, "image_size", 0)) // max(1, int(getattr(vision, "patch_size", 1)))
        self._picture_tokens = side * side + 1
        self._pad = padding_token(files.tokenizer) or 0
        return prepare_captioned_pictures(
            self.options,
            folder=files.folder,
            tokenizer=files.tokenizer,
            cache_dir=cache_dir,
            roots=self.roots,
        )

    def _finish_model(self, model: Any) -> None:
        if not isinstance(getattr(model, "logit_scale", None), Tensor) or hasattr(model, "logit_bias"):
            raise problem(
                "model",
                f"{type(model).__name__} is not of CLIP's kind (a softmax over pairs with a logit_scale)",
            )

    def _embed(self, model: Any, batch: Batch, *, num_configs: int) -> tuple[Tensor, Tensor]:
        """Unit embeddings of pictures and captions, (N, B, D) each."""
        output = model(
            input_ids=batch["tokens"], attention_mask=batch["real"].long(), pixel_values=batch["pixels"]
        )
        image_NBD, text_NBD = (
            F.normalize(part, dim=-1).view(num_configs, -1, part.shape[-1])
            for part in (output.image_embeds, output.text_embeds)
        )
        return image_NBD, text_NBD

    def _rows(self, pairs: Pairs, chosen: NDArray[np.int64], *, like: Tensor) -> dict[str, Tensor]:
        longest = int(pairs.captions.lengths[chosen].max())
        tokens, real = padded_tokens(pairs.captions, chosen, pad=self._pad, most=longest)
        return {
            "tokens": tokens.to(like.device),
            "real": real.to(like.device),
            "pixels": self.data.scaling.scaled(pairs.pixels[chosen], like=like),
            "captions": torch.from_numpy(pairs.caption_numbers[chosen]).to(like.device),
        }

    def _pieces(self, num_configs: int, *, device: torch.device) -> Iterator[NDArray[np.int64]]:
        chosen = self.held_out_indices
        limit = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
        size = max(1, limit // (num_configs * (self._picture_tokens + self.options.max_tokens)))
        for start in range(0, len(chosen), size):
            yield chosen[start : start + size]


def _logits(model: Any, image_NBD: Tensor, text_NBD: Tensor) -> Tensor:
    """Scaled cosine similarity of every picture (rows) and caption (columns), (N, B, B)."""
    logits: Tensor = model.logit_scale.exp() * torch.bmm(image_NBD, text_NBD.mT)
    return logits if logits.dtype == torch.float64 else logits.float()


def _same(captions_NB: Tensor, like: Tensor) -> Tensor:
    """1 where two pairs of a configuration have equal captions, (N, B, B)."""
    same = captions_NB[:, :, None] == captions_NB[:, None, :]
    return same.to(torch.float64 if like.dtype == torch.float64 else torch.float32)
