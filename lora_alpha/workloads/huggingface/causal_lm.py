"""What every workload on a causal language model shares: prepare, build, targets, held-out scores.

A workload is prepared without reading weights: the folder, the tokenizer and the data are checked and tokens
are cached. Weights are read by ``build_model``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lora_alpha.catalog.huggingface_options import CausalLMOptions
from lora_alpha.errors import WorkloadError
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.huggingface import batching
from lora_alpha.workloads.huggingface.corpus import Corpus, prepare_corpus, prepare_source
from lora_alpha.workloads.huggingface.findings import READ_BYTES, corpus_warnings, model_findings
from lora_alpha.workloads.huggingface.held_out_scores import score_examples
from lora_alpha.workloads.huggingface.model_loading import (
    check_model_folder,
    context_length,
    enable_checkpointing,
    load_model,
    load_tokenizer,
    read_config,
)
from lora_alpha.workloads.huggingface.problems import problem
from lora_alpha.workloads.huggingface.sources import Roots, local_path, model_folder
from lora_alpha.workloads.huggingface.targets import check_examples_stay_apart, find_targets
from lora_alpha.workloads.huggingface.token_losses import check_causal_lm
from lora_alpha.workloads.huggingface.tokens import TokenSet


class CausalLMWorkload:
    """A causal language model and a data set of the user's own.

    Args:
        options: What the user chose.
        roots: Folders that local models and data may come from; None: anywhere, for a caller that trains in
            its own process. A service hands in its allowed roots.
    """

    name: str

    def __init__(self, options: CausalLMOptions, *, roots: Roots = None) -> None:
        self.options = options
        self.roots = roots
        self._folder: Path | None = None
        self._corpus: Corpus | None = None
        self._source: TokenSet | None = None
        self._tokenizer: Any = None
        self._unpinned = False

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Find and check the model and the data, and cache tokens; nothing the second time.

        Raises:
            InvalidSpec: With the option that is wrong, what was found and what to do.
        """
        if self._corpus is not None:
            return
        yield Progress("finding the model", 0, 1)
        folder = model_folder(self.options.model, revision=self.options.revision, roots=self.roots)
        self._unpinned = (
            not self.options.revision
            and local_path(self.options.model, option="model", roots=self.roots) is None
        )
        check_model_folder(folder)
        config = read_config(folder)
        self._tokenizer = load_tokenizer(folder)
        longest = context_length(config)
        if longest is not None and self.options.max_tokens > longest:
            raise problem(
                "max_tokens", f"got {self.options.max_tokens}: the model reads at most {longest} tokens"
            )
        where = {"folder": folder, "tokenizer": self._tokenizer, "cache_dir": cache_dir, "roots": self.roots}
        corpus = yield from self._read(**where)
        self._source = yield from prepare_source(self.options, **where)
        self._check_vocabulary(corpus, int(config.get_text_config().vocab_size))
        self._folder = folder
        self._use(corpus)
        self._corpus = corpus

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The base, every parameter frozen, without dropout.

        Raises:
            WorkloadError: If ``prepare`` has not run to its end.
            InvalidSpec: If the weights do not fit, or the model is no causal one.
        """
        model = load_model(self.folder, AutoModelForCausalLM, device=device, dtype=dtype)
        check_causal_lm(model)
        if self.options.gradient_checkpointing:
            enable_checkpointing(model)
        built: nn.Module = model
        return built

    def targets(self, model: nn.Module) -> list[str]:
        """The layers that the options name; never the output layer.

        Raises:
            InvalidSpec: If there is no such layer, or the model mixes examples on the way to one.
        """
        names = find_targets(model, self.options.targets)
        check_examples_stay_apart(model, names)
        return names

    def patterns(self) -> dict[str, Any]:
        """Ranks and α of layers that have their own."""
        return {"rank_pattern": self.options.rank_pattern, "alpha_pattern": self.options.alpha_pattern}

    def micro_batches(self, batch: Batch, *, num_configs: int) -> list[Batch]:
        """The batch in ``accumulation`` parts whose losses add up to the whole's."""
        return list(batching.micro_batches(batch, num_configs=num_configs, parts=self.options.accumulation))

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss`` on held-out completions and ``forgetting_loss``, each (N,)."""
        return self.score(model, num_configs=num_configs)

    def score(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """Held-out cross-entropy per completion token, and forgetting.

        Forgetting is the loss on ``source_data`` where that is given, else the KL divergence from the frozen
        base on the held-out prompts.
        """
        scores = score_examples(
            model, self.held_out, num_configs=num_configs, with_drift=self._source is None
        )
        if self._source is None:
            return {"eval_loss": scores["loss"], "forgetting_loss": scores["drift"]}
        source = score_examples(model, self._source, num_configs=num_configs, with_drift=False)
        return {"eval_loss": scores["loss"], "forgetting_loss": source["loss"]}

    def findings(self) -> dict[str, Any]:
        """What an inspection shows; weights of up to ``READ_BYTES`` are read in full.

        Raises:
            InvalidSpec: If model, targets or weights would stop a run.
        """
        found = model_findings(self.folder, AutoModelForCausalLM, options=self.options)
        facts = self.corpus.facts
        warnings = corpus_warnings(facts, max_tokens=self.options.max_tokens)
        if self._tokenizer.eos_token_id is None:
            warnings.append("the tokenizer has no end of text: the model does not learn where to stop")
        if self._unpinned:
            warnings.append(
                "the hub's main branch may move: give a commit as revision to train on the same again"
            )
        if found["weights_bytes"] <= READ_BYTES:
            self.build_model(device=torch.device("cpu"), dtype=torch.float32)
        else:
            warnings.append("the weights are large and were not read: only their headers were checked")
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
    def corpus(self) -> Corpus:
        """The data.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        if self._corpus is None:
            raise WorkloadError(f"{self.name} is not prepared: run prepare(cache_dir) to its end first")
        return self._corpus

    @property
    def held_out(self) -> TokenSet:
        """The held-out examples that an evaluation reads: ``num_eval`` of them, evenly spread."""
        examples = self.corpus.held_out
        return TokenSet.of(
            (examples.example(index).tolist(), int(examples.prompt_lengths[index]))
            for index in self.held_out_indices
        )

    @property
    def held_out_indices(self) -> list[int]:
        """Which of the held-out examples an evaluation reads."""
        count = len(self.corpus.held_out)
        chosen = np.linspace(0, count - 1, min(count, self.options.num_eval))
        return [int(index) for index in chosen]

    def _read(self, **where: Any) -> Generator[Progress, None, Corpus]:
        """The data as the task needs it."""
        return prepare_corpus(self.options, **where)

    def _use(self, corpus: Corpus) -> None:
        """A subclass's own part of ``prepare``."""

    def _check_vocabulary(self, corpus: Corpus, size: int) -> None:
        highest = max(int(part.tokens.max()) for part in (corpus.train, corpus.held_out))
        if highest >= size:
            raise problem(
                "model",
                f"its tokenizer gives token {highest} but the model knows {size}: take the tokenizer that "
                "belongs to it",
            )
