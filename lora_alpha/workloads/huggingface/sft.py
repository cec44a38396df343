"""``hf-sft`` and ``hf-reasoning-sft``: supervised fine-tuning of a causal language model on its completions.

Shapes: N configurations, B examples (packed rows where examples are packed) each, R = N·B rows, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lora_alpha.catalog.huggingface import ReasoningSFTOptions, SFTOptions
from lora_alpha.catalog.huggingface_options import compiled
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.huggingface.causal_lm import CausalLMWorkload
from lora_alpha.workloads.huggingface.data.batching import (
    drawn_indices,
    pack_examples,
    packed_rows,
    padded_rows,
)
from lora_alpha.workloads.huggingface.data.corpus import Corpus
from lora_alpha.workloads.huggingface.data.rewards import Rewards, final_answer
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.model.sampling import complete, prompts_at_once
from lora_alpha.workloads.huggingface.model.token_losses import check_packing, chosen_losses
from lora_alpha.workloads.huggingface.problems import problem


class SFTWorkload(CausalLMWorkload):
    """Next-token prediction on completions, prompts given."""

    name = "hf-sft"
    options: SFTOptions

    def __init__(self, options: SFTOptions, *, roots: Roots = None) -> None:
        super().__init__(options, roots=roots)
        self._rows: list[list[int]] = []

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Every example once an epoch, in each seed's own order.

        Returns:
            ``tokens``, ``learnt``, ``real`` (R, T), for packed rows ``segments`` and ``positions``, and
            ``num_learnt`` (N,), the learnt tokens of each configuration.
        """
        train = self.data.train
        count = len(self._rows) if self.options.packing else len(train)
        drawn = drawn_indices(seeds, step=step, count=batch_size, num_examples=count).flatten()
        if self.options.packing:
            batch = packed_rows(train, [self._rows[index] for index in drawn], most=self.positions)
        else:
            batch = padded_rows(train, drawn, most=self.positions)
        batch["num_learnt"] = batch["learnt"].view(len(seeds), -1).sum(1)
        device = next(model.parameters()).device
        return {name: value.to(device) for name, value in batch.items()}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Cross-entropy, mean over each configuration's learnt tokens, nats, (N,)."""
        losses_RT = chosen_losses(model, batch)
        return losses_RT.view(num_configs, -1).sum(1) / batch["num_learnt"].clamp(min=1)

    def _read_corpus(self, **where: Any) -> Generator[Progress, None, Corpus]:
        corpus = yield from super()._read_corpus(**where)
        if self.options.packing:
            self._rows = pack_examples(corpus.train, max_tokens=self.options.max_tokens)
        return corpus

    def _finish_model(self, model: Any) -> None:
        super()._finish_model(model)
        if self.options.packing:
            check_packing(model, max_tokens=self.options.max_tokens)


class ReasoningSFTWorkload(SFTWorkload):
    """The same on worked solutions, with the accuracy of the final answers on request."""

    name = "hf-reasoning-sft"
    options: ReasoningSFTOptions

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """Also ``accuracy`` (N,): the share of held-out prompts whose greedy answer ends in the right one."""
        scores = super().evaluate(model, num_configs=num_configs)
        if self.options.accuracy_prompts:
            scores["accuracy"] = self._accuracy(model, num_configs=num_configs).to(scores["eval_loss"])
        return scores

    def _accuracy(self, model: nn.Module, *, num_configs: int) -> Tensor:
        prompts, answers = self._questions
        rewards = Rewards(answer_pattern=self._answer_pattern)
        right = torch.zeros(num_configs)
        longest = max(map(len, prompts)) + self.options.max_new_tokens
        device = next(model.parameters()).device
        size = prompts_at_once(device, rows_each=num_configs, tokens=longest)
        for start in range(0, len(prompts), size):
            piece = slice(start, start + size)
            completions = complete(
                model,
                prompts[piece] * num_configs,
                num_new=self.options.max_new_tokens,
                end=self.tokenizer.eos_token_id,
                draws_RS=None,
            )
            texts = self.tokenizer.batch_decode(completions.tokens, skip_special_tokens=True)
            expected = answers[piece] * num_configs
            met = [rewards.is_right(*pair) for pair in zip(texts, expected, strict=True)]
            right += torch.tensor(met, dtype=torch.float32).view(num_configs, -1).sum(1)
        return right / len(prompts)

    @cached_property
    def _questions(self) -> tuple[list[NDArray[np.int32]], list[str]]:
        """Held-out prompts whose solution is whole and has a final answer, with that answer.

        Raises:
            InvalidSpec: If there are none.
        """
        examples, end = self.data.held_out, self.tokenizer.eos_token_id
        prompts, answers = [], []
        for index in range(len(examples)):
            tokens, length = examples.example(index), int(examples.prompt_lengths[index])
            text = self.tokenizer.decode(tokens[length:], skip_special_tokens=True)
            answer = final_answer(text, self._answer_pattern)
            if length > 0 and tokens[-1] == end and answer is not None:
                prompts.append(tokens[:length])
                answers.append(answer)
            if len(prompts) == self.options.accuracy_prompts:
                break
        if not prompts:
            raise problem(
                "accuracy_prompts",
                "no held-out solution is whole and has a final answer: raise max_tokens, or give "
                "answer_pattern",
            )
        return prompts, answers

    @property
    def _answer_pattern(self) -> re.Pattern[str] | None:
        pattern = self.options.answer_pattern
        return compiled("answer_pattern", pattern) if pattern else None

    def findings(self) -> dict[str, Any]:
        """Also whether accuracy can be measured."""
        if self.options.accuracy_prompts:
            _ = self._questions
        return super().findings()
