"""``hf-rl``: reasoning RL with verifiable rewards. A causal language model learns from its own completions.

One policy-gradient step per batch: G completions are sampled for each prompt, judged by a rule (right
final answer, pattern, form), their advantages are normalised within the group, the probability ratio is
clipped, and an estimate of the KL divergence from the frozen base (the model with its adapters off) can be
added. Sampling draws are a function of (seed, step, prompt, token) alone.

Source: Shao et al. 2024 (2402.03300), GRPO; the loss is the mean over all completion tokens of a
configuration (Yu et al. 2025, 2503.14476, "DAPO"), so that a long completion does not count less per token.
Departure: with one update per batch the ratio is 1 up to rounding and the clip idle.

Shapes: N configurations, B prompts, G completions of each, R = N·B·G rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_alpha.catalog.huggingface import RLOptions
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.counter_rng import uniforms
from lora_alpha.workloads.huggingface.causal_lm import CausalLMWorkload
from lora_alpha.workloads.huggingface.data.batching import drawn_indices, padded_rows
from lora_alpha.workloads.huggingface.data.corpus import Corpus
from lora_alpha.workloads.huggingface.data.prompts import prepare_prompts, rewards_of
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.tokens import TokenSet
from lora_alpha.workloads.huggingface.held_out_scores import adapters_disabled
from lora_alpha.workloads.huggingface.model.sampling import Completions, complete, prompts_at_once
from lora_alpha.workloads.huggingface.model.token_losses import chosen_losses
from lora_alpha.workloads.huggingface.problems import counted
from lora_alpha.workloads.policy_gradient import clipped_surrogate, divergence_estimate, group_advantages

SAMPLE_STREAM, EVAL_STREAM = 12, 13


class RLWorkload(CausalLMWorkload):
    """Policy gradient on verifiable rewards."""

    name = "hf-rl"
    options: RLOptions

    def __init__(self, options: RLOptions, *, roots: Roots = None) -> None:
        super().__init__(options, roots=roots)
        self.rewards = rewards_of(options)

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Prompts with the current policy's completions.

        Returns:
            ``tokens``, ``learnt`` (the completions), ``real`` (R, T); ``behaviour`` (R, T), log-probabilities
            of the completions where they were sampled; ``rewards`` and ``advantages`` (R, 1); ``reference``
            (R, T), the frozen base's log-probabilities, where ``kl_weight`` asks for them; ``num_learnt`` and
            ``num_rows`` (N,).
        """
        options, train = self.options, self.data.train
        group = options.group_size
        drawn = drawn_indices(seeds, step=step, count=batch_size, num_examples=len(train)).flatten()
        rows = np.repeat(drawn, group)
        draws = uniforms(
            seeds, step=step, count=batch_size * group * options.max_new_tokens, stream=SAMPLE_STREAM
        )
        completions = self._complete(
            model, train, rows, torch.from_numpy(draws).view(-1, options.max_new_tokens)
        )
        answers = [self.data.answers["train"][row] for row in rows]
        rewards = torch.tensor(self._judge(completions, answers), dtype=torch.float64)
        batch = _rows(train, rows, completions, most=self.positions)
        batch |= {
            "rewards": rewards[:, None],
            "advantages": group_advantages(rewards.view(-1, group)).view(-1, 1),
            "num_learnt": batch["learnt"].view(len(seeds), -1).sum(1),
            "num_rows": torch.full((len(seeds),), batch_size * group),
        }
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in batch.items()}
        if options.kl_weight > 0:
            with torch.no_grad(), adapters_disabled(model):
                batch["reference"] = -chosen_losses(model, batch, temperature=options.temperature)
        return batch

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Clipped policy-gradient loss plus weighted KL, mean over completion tokens, (N,).

        Its gradient is the surrogate's. Its value is shifted by a constant to 1 − mean reward (plus KL),
        since the surrogate itself is 0 at every on-policy step and would make an empty curve.
        """
        log_probs = -chosen_losses(model, batch, temperature=self.options.temperature)
        learnt = batch["learnt"]
        surrogate = clipped_surrogate(
            log_probs,
            batch["behaviour"].to(log_probs),
            batch["advantages"].to(log_probs),
            clip_range=self.options.clip_range,
        )

        def mean(values_RT: Tensor) -> Tensor:
            sums = torch.where(learnt, values_RT, 0).view(num_configs, -1).sum(1)
            return sums / batch["num_learnt"].clamp(min=1)

        loss = -mean(surrogate)
        missed = (1 - batch["rewards"]).view(num_configs, -1).sum(1) / batch["num_rows"]
        loss = loss + (missed.to(loss) - loss).detach()
        if "reference" in batch:
            loss = loss + self.options.kl_weight * mean(divergence_estimate(log_probs, batch["reference"]))
        return loss

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss`` = 1 − mean reward, ``accuracy``, ``completion_tokens``, ``forgetting_loss``; (N,).

        Held-out prompts, ``eval_samples`` completions each. The draws are the same at every evaluation and
        for every configuration and seed, so that differences are the models' and not the dice's.
        """
        samples, new = self.options.eval_samples, self.options.max_new_tokens
        indices = self.held_out_indices
        examples = self.data.held_out
        device = next(model.parameters()).device
        longest = int(examples.lengths[indices].max()) + new
        size = prompts_at_once(device, rows_each=num_configs * samples, tokens=longest)
        draws = torch.from_numpy(
            uniforms([0], step=0, count=len(indices) * samples * new, stream=EVAL_STREAM)
        )
        draws = draws.view(len(indices), samples, new)
        totals = torch.zeros(3, num_configs, dtype=torch.float64)
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            rows = np.tile(np.repeat(chosen, samples), num_configs)
            own = draws[start : start + size].reshape(-1, new).repeat(num_configs, 1)
            completions = self._complete(model, examples, rows, own)
            answers = [self.data.answers["held_out"][row] for row in rows]
            texts = self._texts(completions)
            for place, values in enumerate(
                (
                    self._judge(completions, answers),
                    [self.rewards.is_right(*pair) for pair in zip(texts, answers, strict=True)],
                    [len(tokens) for tokens in completions.tokens],
                )
            ):
                totals[place] += torch.tensor(values, dtype=torch.float64).view(num_configs, -1).sum(1)
        reward, accuracy, length = (totals / (len(indices) * samples)).to(device)
        forgetting = self.score(model, num_configs=num_configs)["forgetting_loss"]
        return {
            "eval_loss": 1 - reward,
            "accuracy": accuracy,
            "completion_tokens": length,
            "forgetting_loss": forgetting,
        }

    def findings(self) -> dict[str, Any]:
        """Also how many rows have no final answer."""
        found = super().findings()
        if found["num_unanswered"]:
            left_out = counted(found["num_unanswered"], "row is left out", "rows are left out")
            found["warnings"].append(f"{left_out}: the reference has no final answer")
        return found

    def _read_corpus(self, **where: Any) -> Generator[Progress, None, Corpus]:
        return prepare_prompts(self.options, **where)

    def _complete(
        self, model: nn.Module, examples: TokenSet, rows: np.ndarray[Any, Any], draws: Tensor
    ) -> Completions:
        return complete(
            model,
            [examples.example(int(row)) for row in rows],
            num_new=self.options.max_new_tokens,
            end=self.tokenizer.eos_token_id,
            draws_RS=draws,
            temperature=self.options.temperature,
        )

    def _texts(self, completions: Completions) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(completions.tokens, skip_special_tokens=True)
        return texts

    def _judge(self, completions: Completions, answers: Sequence[str]) -> list[float]:
        texts = self._texts(completions)
        return [self.rewards.score(text, answer) for text, answer in zip(texts, answers, strict=True)]


def _rows(
    examples: TokenSet, rows: np.ndarray[Any, Any], completions: Completions, *, most: int | None
) -> dict[str, Tensor]:
    """Prompts and completions as padded rows, with the sampled log-probabilities at their tokens."""
    pairs = [
        ([*examples.example(int(row)).tolist(), *tokens], int(examples.lengths[int(row)]))
        for row, tokens in zip(rows, completions.tokens, strict=True)
    ]
    batch = padded_rows(TokenSet.of(pairs), range(len(pairs)), most=most)
    behaviour = torch.zeros(batch["tokens"].shape, dtype=torch.float64)
    flat = [value for values in completions.log_probs for value in values]
    behaviour[batch["learnt"]] = torch.tensor(flat, dtype=torch.float64)
    return {**batch, "behaviour": behaviour}
