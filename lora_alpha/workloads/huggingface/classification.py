"""``hf-classify``: any transformers model with a classification class learns the labels of texts.

The output layer is fixed by ``head_seed`` where the model does not bring one, and adapted like every other
layer (see ``heads.py``).

Shapes: N configurations, R rows, T tokens, C labels, H width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from lora_alpha.catalog.huggingface_encoders import ClassificationOptions
from lora_alpha.errors import WorkloadError
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.held_out import CPU_TOKENS, GPU_TOKENS
from lora_alpha.workloads.huggingface import batching
from lora_alpha.workloads.huggingface.batching import MULTIPLE, drawn_indices
from lora_alpha.workloads.huggingface.findings import FEW_HELD_OUT, READ_BYTES, model_findings
from lora_alpha.workloads.huggingface.heads import NEW_WEIGHTS, check_head, draw_head, new_linear_layers
from lora_alpha.workloads.huggingface.held_out_scores import adapters_disabled, repeated
from lora_alpha.workloads.huggingface.labelled_texts import LabelledTexts, prepare_labelled_texts
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
from lora_alpha.workloads.huggingface.targets import (
    ALL_LINEAR,
    check_examples_stay_apart,
    find_targets,
)
from lora_alpha.workloads.huggingface.tokens import TokenSet

# DeBERTa puts the embeddings of relative positions through these as well. They come once for the whole batch,
# not once for each configuration, so that no adapter of a pack can be applied to them.
SHARED_WITH_POSITIONS = r".*\.(query_proj|key_proj|pos_proj|pos_q_proj|pos_key_proj|pos_query_proj|in_proj)"


class ClassificationWorkload:
    """A model with a classification class and labelled texts of the user's own.

    Args:
        options: What the user chose.
        roots: Folders that local models and data may come from; None: anywhere, for a caller that trains in
            its own process. A service hands in its allowed roots.
    """

    name = "hf-classify"

    def __init__(self, options: ClassificationOptions, *, roots: Roots = None) -> None:
        self.options = options
        self.roots = roots
        self._folder: Path | None = None
        self._data: LabelledTexts | None = None
        self._pad = 0
        self._has_types = False
        self._head: dict[str, dict[str, Tensor]] = {}

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Find and check the model and the data, and cache tokens; nothing the second time.

        Raises:
            InvalidSpec: With the option that is wrong, what was found and what to do.
        """
        if self._data is not None:
            return
        yield Progress("finding the model", 0, 1)
        folder = model_folder(self.options.model, revision=self.options.revision, roots=self.roots)
        check_model_folder(folder)
        config = read_config(folder)
        tokenizer = load_tokenizer(folder)
        # RoBERTa's positions begin behind its padding token's: only its tokenizer knows how many are left.
        longest = min(context_length(config) or tokenizer.model_max_length, tokenizer.model_max_length)
        if self.options.max_tokens > longest:
            raise problem(
                "max_tokens", f"got {self.options.max_tokens}: the model reads at most {longest} tokens"
            )
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad is None:
            raise problem(
                "model", f"the tokenizer in {folder} has neither a padding nor an end-of-text token"
            )
        self._pad = int(pad)
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        data = yield from prepare_labelled_texts(
            self.options, folder=folder, tokenizer=tokenizer, cache_dir=cache_dir, roots=self.roots
        )
        check_head(folder, num_labels=len(data.names))
        self._folder, self._data = folder, data

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The base with its head, every parameter frozen, without dropout.

        Raises:
            WorkloadError: If ``prepare`` has not run to its end.
            InvalidSpec: If the weights do not fit, or the architecture has no classification class.
        """
        model = load_model(
            self.folder,
            AutoModelForSequenceClassification,
            device=device,
            dtype=dtype,
            new_weights=NEW_WEIGHTS,
            num_labels=len(self.data.names),
        )
        model.config.pad_token_id = self._pad
        new = new_linear_layers(model, self.folder)
        draw_head(model, new, seed=self.options.head_seed)
        self._head = {name: _copied(model.get_submodule(name)) for name in new}
        if self.options.gradient_checkpointing:
            enable_checkpointing(model)
        built: nn.Module = model
        return built

    def targets(self, model: nn.Module) -> list[str]:
        """The layers that the options name, and a head that has just been drawn."""
        found = find_targets(model, self.options.targets)
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

    def patterns(self) -> dict[str, Any]:
        """Ranks and α of layers that have their own."""
        return {"rank_pattern": self.options.rank_pattern, "alpha_pattern": self.options.alpha_pattern}

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

    def micro_batches(self, batch: Batch, *, num_configs: int) -> list[Batch]:
        """The batch in ``accumulation`` parts whose losses add up to the whole's."""
        return list(batching.micro_batches(batch, num_configs=num_configs, parts=self.options.accumulation))

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

    def findings(self) -> dict[str, Any]:
        """What an inspection shows; weights of up to ``READ_BYTES`` are read in full.

        Raises:
            InvalidSpec: If model, targets or weights would stop a run.
        """
        found = model_findings(
            self.folder, AutoModelForSequenceClassification, options=self.options, skipped=NEW_WEIGHTS
        )
        facts = self.data.facts
        warnings = []
        if found["weights_bytes"] <= READ_BYTES:
            model = self.build_model(device=torch.device("cpu"), dtype=torch.float32)
            targets = self.targets(model)
            found |= {"num_targets": len(targets), "new_layers": list(self._head)}
            if any(_is_shared(model, name) for name in find_targets(model, self.options.targets)):
                warnings.append(
                    "layers that also project relative positions (query_proj, key_proj) get no adapters"
                )
        else:
            warnings.append("the weights are large and were not read: only their headers were checked")
        if facts["num_truncated"]:
            warnings.append(
                f"{facts['num_truncated']:,} of {facts['rows']:,} texts are longer than max_tokens = "
                f"{self.options.max_tokens} and are cut"
            )
        if facts["num_held_out"] < FEW_HELD_OUT:
            warnings.append(
                f"only {facts['num_held_out']} texts are held out: differences between runs will be noise; "
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
    def data(self) -> LabelledTexts:
        """The labelled texts.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        if self._data is None:
            raise WorkloadError(f"{self.name} is not prepared: run prepare(cache_dir) to its end first")
        return self._data

    def _call(self, model: Any, batch: Batch, **wanted: bool) -> Any:
        types = {"token_type_ids": batch["types"]} if self._has_types else {}
        return model(input_ids=batch["tokens"], attention_mask=batch["real"].long(), **types, **wanted)

    def _rows(
        self, examples: TokenSet, labels: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        lengths = examples.lengths[chosen]
        width = -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
        tokens = np.full((len(chosen), width), self._pad, dtype=np.int64)
        for place, index in enumerate(chosen):
            tokens[place, : lengths[place]] = examples.example(int(index))
        column = np.arange(width)
        first_segment = examples.prompt_lengths[chosen][:, None]
        real = column < lengths[:, None]
        return {
            "tokens": torch.from_numpy(tokens),
            "real": torch.from_numpy(real),
            "types": torch.from_numpy((real & (column >= first_segment)).astype(np.int64)),
            "labels": torch.from_numpy(labels[chosen]),
        }

    def _pieces(self, num_configs: int, *, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """The held-out texts that an evaluation reads, similar lengths together."""
        data = self.data
        count = min(len(data.held_out), self.options.num_eval)
        chosen = np.linspace(0, len(data.held_out) - 1, count).astype(np.int64)
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
