"""``hf-classify``: any transformers model with a classification class learns the labels of texts.

The output layer is fixed by ``head_seed`` where the model does not bring one, and adapted like every other
layer (see ``heads.py``).

Shapes: N configurations, R rows, T tokens, C labels, H width.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from lora_alpha.catalog.huggingface_encoders import ClassificationOptions
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.held_out import CPU_TOKENS, GPU_TOKENS
from lora_alpha.workloads.huggingface.data.batching import drawn_indices, padded_tokens
from lora_alpha.workloads.huggingface.data.labelled_texts import LabelledTexts, prepare_labelled_texts
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.tokens import TokenSet
from lora_alpha.workloads.huggingface.fine_tuning import FineTuningWorkload, ModelFiles
from lora_alpha.workloads.huggingface.held_out_scores import adapters_disabled, repeated
from lora_alpha.workloads.huggingface.model.heads import NEW_WEIGHTS, check_head, draw_head, new_linear_layers
from lora_alpha.workloads.huggingface.model.loading import padding_token
from lora_alpha.workloads.huggingface.model.targets import ALL_LINEAR, check_examples_stay_apart
from lora_alpha.workloads.huggingface.problems import problem

# DeBERTa puts the embeddings of relative positions through these as well. They come once for the whole batch,
# not once for each configuration, so that no adapter of a pack can be applied to them.
SHARED_WITH_POSITIONS = r".*\.(query_proj|key_proj|pos_proj|pos_q_proj|pos_key_proj|pos_query_proj|in_proj)"


class ClassificationWorkload(FineTuningWorkload[LabelledTexts]):
    """A model with a classification class and labelled texts of the user's own."""

    name = "hf-classify"
    auto_class = AutoModelForSequenceClassification
    new_weights = NEW_WEIGHTS
    example = text = ("text", "texts")
    options: ClassificationOptions

    def __init__(self, options: ClassificationOptions, *, roots: Roots = None) -> None:
        super().__init__(options, roots=roots)
        self._pad = 0
        self._has_types = False
        self._head: dict[str, dict[str, Tensor]] = {}

    def targets(self, model: nn.Module) -> list[str]:
        """The layers that the options name, and a head that has just been drawn."""
        found = super().targets(model)
        refused = [name for name in found if _is_shared(model, name)]
        if refused and self.options.targets.strip() != ALL_LINEAR:
            raise problem(
                "targets",
                f"{refused[0]} also projects relative positions, which all configurations of a pack share: "
                "choose other layers of this model, such as value_proj, dense",
            )
        wanted = {*found, *self._head} - {*refused}
        names = [name for name, _ in model.named_modules() if name in wanted]
        check_examples_stay_apart(model, names)
        return names

    def new_layers(self) -> dict[str, dict[str, Tensor]]:
        """Weights that the model's files lack, by layer: without them an exported adapter has no base."""
        return self._head

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Every example once an epoch, in each seed's own order.

        Returns:
            ``tokens``, ``real``, ``types`` (R, T), ``labels`` (R,), and ``num_rows`` (N,).
        """
        data = self.data
        drawn = drawn_indices(seeds, step=step, count=batch_size, num_examples=len(data.train)).flatten()
        batch = self._rows(data.train, data.train_labels, drawn)
        batch["num_rows"] = torch.full((len(seeds),), batch_size)
        device = next(model.parameters()).device
        return {name: value.to(device) for name, value in batch.items()}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Cross-entropy, mean over each configuration's rows, nats, (N,)."""
        losses_R = _cross_entropy(self._call(model, batch).logits, batch["labels"])
        return losses_R.view(num_configs, -1).sum(1) / batch["num_rows"]

    @torch.no_grad()
    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss``, ``accuracy`` and ``forgetting_loss`` on held-out texts, each (N,).

        Forgetting is ‖h − h0‖²/‖h0‖² of the last hidden states against the frozen base's.
        """
        device = next(model.parameters()).device
        sums = {
            name: torch.zeros(num_configs, dtype=torch.float64, device=device)
            for name in ("loss", "right", "change")
        }
        num_rows, base_square = 0, 0.0
        for piece in self._pieces(num_configs, device=device):
            output = self._call(model, repeated(piece, num_configs), output_hidden_states=True)
            with adapters_disabled(model):
                base_RTH = self._call(model, piece, output_hidden_states=True).hidden_states[-1]
            logits_NRC = output.logits.view(num_configs, len(piece["labels"]), -1)
            labels_NR = piece["labels"].expand(num_configs, -1)
            losses = _cross_entropy(logits_NRC.flatten(0, 1), labels_NR.flatten())
            sums["loss"] += losses.view(num_configs, -1).double().sum(1)
            sums["right"] += (logits_NRC.argmax(-1) == labels_NR).sum(1)
            states_NRTH = output.hidden_states[-1].view(num_configs, *base_RTH.shape)
            real_RT1 = piece["real"][..., None]
            sums["change"] += ((states_NRTH - base_RTH) * real_RT1).double().square().sum((1, 2, 3))
            base_square += float((base_RTH * real_RT1).double().square().sum())
            num_rows += len(piece["labels"])
        return {
            "eval_loss": sums["loss"] / num_rows,
            "accuracy": sums["right"] / num_rows,
            "forgetting_loss": sums["change"] / base_square,
        }

    def _longest(self, files: ModelFiles) -> int | None:
        # RoBERTa's positions begin behind its padding token's: only its tokenizer knows how many are left.
        limit = int(files.tokenizer.model_max_length)
        return min(super()._longest(files) or limit, limit)

    def _read(self, files: ModelFiles, cache_dir: Path) -> Generator[Progress, None, LabelledTexts]:
        pad = padding_token(files.tokenizer)
        if pad is None:
            raise problem(
                "model", f"the tokenizer in {files.folder} has neither a padding nor an end-of-text token"
            )
        self._pad = pad
        self._has_types = "token_type_ids" in files.tokenizer.model_input_names
        data = yield from prepare_labelled_texts(
            self.options,
            folder=files.folder,
            tokenizer=files.tokenizer,
            cache_dir=cache_dir,
            roots=self.roots,
        )
        check_head(files.folder, num_labels=len(data.names))
        return data

    def _config_changes(self) -> dict[str, Any]:
        return {"num_labels": len(self.data.names)}

    def _finish_model(self, model: Any) -> None:
        model.config.pad_token_id = self._pad
        new = new_linear_layers(model, self.folder)
        draw_head(model, new, seed=self.options.head_seed)
        self._head = {name: _copied(model.get_submodule(name)) for name in new}

    def _inspect(self, model: nn.Module, found: dict[str, Any]) -> None:
        found |= {"num_targets": len(self.targets(model)), "new_layers": list(self._head)}
        if any(_is_shared(model, name) for name in super().targets(model)):
            found["warnings"].append(
                "layers that also project relative positions (query_proj, key_proj) get no adapters"
            )

    def _call(self, model: Any, batch: Batch, **wanted: bool) -> Any:
        types = {"token_type_ids": batch["types"]} if self._has_types else {}
        return model(input_ids=batch["tokens"], attention_mask=batch["real"].long(), **types, **wanted)

    def _rows(
        self, examples: TokenSet, labels: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        tokens, real = padded_tokens(examples, chosen, pad=self._pad, most=self.positions)
        first_segment = torch.from_numpy(examples.prompt_lengths[chosen])[:, None]
        in_second = torch.arange(tokens.shape[1]) >= first_segment
        return {
            "tokens": tokens,
            "real": real,
            "types": (real & in_second).long(),
            "labels": torch.from_numpy(labels[chosen]),
        }

    def _pieces(self, num_configs: int, *, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """The held-out texts that an evaluation reads, similar lengths together."""
        data = self.data
        chosen = self.held_out_indices
        chosen = chosen[np.argsort(-data.held_out.lengths[chosen], kind="stable")]
        limit = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
        start = 0
        while start < len(chosen):
            width = int(data.held_out.lengths[chosen[start]])
            size = max(1, limit // (num_configs * width))
            rows = self._rows(data.held_out, data.held_out_labels, chosen[start : start + size])
            yield {name: value.to(device) for name, value in rows.items()}
            start += size


def _is_shared(model: Any, name: str) -> bool:
    is_deberta = str(model.config.model_type).startswith("deberta")
    return is_deberta and re.fullmatch(SHARED_WITH_POSITIONS, name) is not None


def _copied(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in layer.named_parameters(recurse=False)}


def _cross_entropy(logits_RC: Tensor, labels_R: Tensor) -> Tensor:
    wide = logits_RC if logits_RC.dtype == torch.float64 else logits_RC.float()
    return F.cross_entropy(wide, labels_R, reduction="none")
