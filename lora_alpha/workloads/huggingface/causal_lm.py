"""What every workload on a causal language model shares: its data, targets and held-out scores."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lora_alpha.catalog.huggingface_options import CausalLMOptions
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.corpus import Corpus, prepare_corpus, prepare_source
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.tokens import TokenSet
from lora_alpha.workloads.huggingface.fine_tuning import FineTuningWorkload, ModelFiles
from lora_alpha.workloads.huggingface.held_out_scores import score_examples
from lora_alpha.workloads.huggingface.model.targets import check_examples_stay_apart
from lora_alpha.workloads.huggingface.model.token_losses import check_causal_lm
from lora_alpha.workloads.huggingface.problems import problem


class CausalLMWorkload(FineTuningWorkload[Corpus]):
    """A causal language model, and prompts with completions, texts or chats."""

    auto_class = AutoModelForCausalLM
    options: CausalLMOptions

    def __init__(self, options: CausalLMOptions, *, roots: Roots = None) -> None:
        super().__init__(options, roots=roots)
        self._source: TokenSet | None = None

    def targets(self, model: nn.Module) -> list[str]:
        """The layers that the options name; never the output layer.

        Raises:
            InvalidSpec: If there is no such layer, or the model mixes examples on the way to one.
        """
        names = super().targets(model)
        check_examples_stay_apart(model, names)
        return names

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss`` on held-out completions and ``forgetting_loss``, each (N,)."""
        return self.score(model, num_configs=num_configs)

    def score(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """Held-out cross-entropy per completion token, and forgetting.

        Forgetting is the loss on ``source_data`` where that is given, else the KL divergence from the frozen
        base on the held-out prompts.
        """
        score = partial(score_examples, model, num_configs=num_configs, most=self.positions)
        scores = score(self.held_out, with_divergence=self._source is None)
        if self._source is None:
            return {"eval_loss": scores["loss"], "forgetting_loss": scores["divergence_from_base"]}
        source = score(self._source, with_divergence=False)
        return {"eval_loss": scores["loss"], "forgetting_loss": source["loss"]}

    def findings(self) -> dict[str, Any]:
        """Also whether the model can learn where to stop."""
        found = super().findings()
        if self.tokenizer.eos_token_id is None:
            found["warnings"].append(
                "the tokenizer has no end of text: the model does not learn where to stop"
            )
        return found

    @property
    def held_out(self) -> TokenSet:
        """The held-out examples that an evaluation reads."""
        examples = self.data.held_out
        return TokenSet.of(
            (examples.example(index).tolist(), int(examples.prompt_lengths[index]))
            for index in self.held_out_indices
        )

    def _read(self, files: ModelFiles, cache_dir: Path) -> Generator[Progress, None, Corpus]:
        where = {"folder": files.folder, "tokenizer": files.tokenizer}
        where |= {"cache_dir": cache_dir, "roots": self.roots}
        corpus = yield from self._read_corpus(**where)
        self._source = yield from prepare_source(self.options, **where)
        _check_vocabulary(corpus, int(files.config.get_text_config().vocab_size))
        return corpus

    def _read_corpus(self, **where: Any) -> Generator[Progress, None, Corpus]:
        return prepare_corpus(self.options, **where)

    def _finish_model(self, model: Any) -> None:
        check_causal_lm(model)


def _check_vocabulary(corpus: Corpus, size: int) -> None:
    highest = max(int(part.tokens.max()) for part in (corpus.train, corpus.held_out))
    if highest >= size:
        raise problem(
            "model",
            f"its tokenizer gives token {highest} but the model knows {size}: take the tokenizer that "
            "belongs to it",
        )
