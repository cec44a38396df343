"""``hf-clip``: a dual encoder of transformers learns to match the user's pictures with their captions.

Shapes: N configurations, B pairs each, R = N·B rows, K held-out pairs, D embedding width, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from lora_alpha.catalog.huggingface_encoders import DualEncoderOptions
from lora_alpha.errors import WorkloadError
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.clip import contrastive_losses
from lora_alpha.workloads.held_out import CPU_TOKENS, GPU_TOKENS
from lora_alpha.workloads.huggingface.batching import drawn_indices
from lora_alpha.workloads.huggingface.captioned_pictures import (
    CaptionedPictures,
    Pairs,
    prepare_captioned_pictures,
)
from lora_alpha.workloads.huggingface.findings import FEW_HELD_OUT, READ_BYTES, model_findings
from lora_alpha.workloads.huggingface.held_out_scores import adapters_disabled, repeated
from lora_alpha.workloads.huggingface.model_loading import (
    check_model_folder,
    context_length,
    enable_checkpointing,
    load_model,
    load_tokenizer,
    read_config,
)
from lora_alpha.workloads.huggingface.problems import problem
from lora_alpha.workloads.huggingface.sources import Roots, model_folder
from lora_alpha.workloads.huggingface.targets import find_targets


class DualEncoderWorkload:
    """A model with an image and a text tower, and pictures with captions of the user's own.

    Args:
        options: What the user chose.
        roots: Folders that local models and data may come from; None: anywhere, for a caller that trains in
            its own process. A service hands in its allowed roots.
    """

    name = "hf-clip"

    def __init__(self, options: DualEncoderOptions, *, roots: Roots = None) -> None:
        self.options = options
        self.roots = roots
        self._folder: Path | None = None
        self._data: CaptionedPictures | None = None
        self._pad = 0
        self._picture_tokens = 1

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Find and check the model and the data, and cache the pictures; nothing the second time.

        Raises:
            InvalidSpec: With the option that is wrong, what was found and what to do.
        """
        if self._data is not None:
            return
        yield Progress("finding the model", 0, 1)
        folder = model_folder(self.options.model, revision=self.options.revision, roots=self.roots)
        check_model_folder(folder)
        config = read_config(folder)
        vision = getattr(config, "vision_config", None)
        if vision is None or getattr(config, "text_config", None) is None:
            raise problem(
                "model",
                f"{folder} is a {config.model_type} model: give a dual encoder such as CLIP, with a "
                "vision_config and a text_config",
            )
        longest = context_length(config)
        if longest is not None and self.options.max_tokens > longest:
            raise problem(
                "max_tokens", f"got {self.options.max_tokens}: the model reads at most {longest} tokens"
            )
        side = int(getattr(vision, "image_size", 0)) // max(1, int(getattr(vision, "patch_size", 1)))
        self._picture_tokens = side * side + 1
        tokenizer = load_tokenizer(folder)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._pad = int(pad or 0)
        self._data = yield from prepare_captioned_pictures(
            self.options, folder=folder, tokenizer=tokenizer, cache_dir=cache_dir, roots=self.roots
        )
        self._folder = folder

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Both towers, every parameter frozen, without dropout.

        Raises:
            WorkloadError: If ``prepare`` has not run to its end.
            InvalidSpec: If the weights do not fit, or the model is not trained by a softmax over pairs.
        """
        model = load_model(self.folder, AutoModel, device=device, dtype=dtype)
        if not isinstance(getattr(model, "logit_scale", None), Tensor) or hasattr(model, "logit_bias"):
            raise problem(
                "model",
                f"{type(model).__name__} is not of CLIP's kind (a softmax over pairs with a logit_scale)",
            )
        if self.options.gradient_checkpointing:
            enable_checkpointing(model)
        built: nn.Module = model
        return built

    def targets(self, model: nn.Module) -> list[str]:
        """The layers that the options name, in both towers."""
        return find_targets(model, self.options.targets)

    def patterns(self) -> dict[str, Any]:
        """Ranks and α of layers that have their own."""
        return {"rank_pattern": self.options.rank_pattern, "alpha_pattern": self.options.alpha_pattern}

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

    def findings(self) -> dict[str, Any]:
        """What an inspection shows; weights of up to ``READ_BYTES`` are read in full.

        Raises:
            InvalidSpec: If model, targets or weights would stop a run.
        """
        found = model_findings(self.folder, AutoModel, options=self.options)
        facts = self.data.facts
        warnings = []
        if found["weights_bytes"] <= READ_BYTES:
            self.build_model(device=torch.device("cpu"), dtype=torch.float32)
        else:
            warnings.append("the weights are large and were not read: only their headers were checked")
        if facts["num_truncated"]:
            warnings.append(
                f"{facts['num_truncated']:,} of {facts['rows']:,} captions are longer than max_tokens = "
                f"{self.options.max_tokens} and are cut"
            )
        if facts["num_held_out"] < FEW_HELD_OUT:
            warnings.append(
                f"only {facts['num_held_out']} pairs are held out: differences between runs will be noise; "
                "hold out more, or give test_data"
            )
        return {**facts, **found, "warnings": warnings}

    @property
    def folder(self) -> Path:
        """Where the model's files lie.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        if self._folder is None:
            raise WorkloadError(f"{self.name} is not prepared: run prepare(cache_dir) to its end first")
        return self._folder

    @property
    def data(self) -> CaptionedPictures:
        """The pairs.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        if self._data is None:
            raise WorkloadError(f"{self.name} is not prepared: run prepare(cache_dir) to its end first")
        return self._data

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
        lengths = pairs.captions.lengths[chosen]
        tokens = np.full((len(chosen), int(lengths.max())), self._pad, dtype=np.int64)
        for place, index in enumerate(chosen):
            tokens[place, : lengths[place]] = pairs.captions.example(int(index))
        real = np.arange(tokens.shape[1]) < lengths[:, None]
        return {
            "tokens": torch.from_numpy(tokens).to(like.device),
            "real": torch.from_numpy(real).to(like.device),
            "pixels": self.data.scaling.scaled(pairs.pixels[chosen], like=like),
            "captions": torch.from_numpy(pairs.caption_numbers[chosen]).to(like.device),
        }

    def _pieces(self, num_configs: int, *, device: torch.device) -> Iterator[NDArray[np.int64]]:
        count = min(len(self.data.held_out), self.options.num_eval)
        chosen = np.linspace(0, len(self.data.held_out) - 1, count).astype(np.int64)
        limit = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
        size = max(1, limit // (num_configs * (self._picture_tokens + self.options.max_tokens)))
        for start in range(0, count, size):
            yield chosen[start : start + size]


def _logits(model: Any, image_NBD: Tensor, text_NBD: Tensor) -> Tensor:
    """Scaled cosine similarity of every picture (rows) and caption (columns), (N, B, B)."""
    logits: Tensor = model.logit_scale.exp() * torch.bmm(image_NBD, text_NBD.mT)
    return logits if logits.dtype == torch.float64 else logits.float()


def _same(captions_NB: Tensor, like: Tensor) -> Tensor:
    """1 where two pairs of a configuration have equal captions, (N, B, B)."""
    same = captions_NB[:, :, None] == captions_NB[:, None, :]
    return same.to(torch.float64 if like.dtype == torch.float64 else torch.float32)
