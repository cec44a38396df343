"""``mod-rl``: reasoning RL with a verifiable reward, on ambiguous modular arithmetic.

The base has learnt ``a + b =``, ``a - b =`` (mod m) and the ambiguous ``a ± b =``, which it answers
either way, half of the time each. Prompts are the ambiguous ones and the reward is 1 for a−b: the policy
has to choose between two skills it has. What it forgets is measured on the explicit prompts, which reward
training never shows.

One policy-gradient step per batch: G answers are sampled for each prompt, their advantages are normalised
within the group, the probability ratio is clipped, and the exact KL divergence from the frozen base can
be added. Success is measured without sampling: the probability of a−b itself. Sampling uses draws that
are a function of (seed, step, prompt) alone, so a resumed run samples the same answers.

Source: Shao et al. 2024 (2402.03300), GRPO; Schulman et al. 2017 (1707.06347) for the clipped surrogate.
Departures: an answer is one token, so KL is summed exactly over answers instead of estimated. At
temperature 1 the ratio is 1 at every step and the clip idle, as in any GRPO with one update per batch; at
another temperature the ratio corrects for the hotter or colder sampling and the clip acts.

Shapes: N configurations, B prompts, G answers a prompt, M = modulus answers possible, R = N·B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.catalog.builtin_text import ModRLOptions
from lora_alpha.models.causal_lm import CausalLM
from lora_alpha.workloads.base import Batch, Progress
from lora_alpha.workloads.counter_rng import indices, uniforms
from lora_alpha.workloads.held_out import score_rows
from lora_alpha.workloads.policy_gradient import clipped_surrogate, group_advantages, sample_by_inversion
from lora_alpha.workloads.pretrained import PretrainedWorkload
from lora_alpha.workloads.pretraining import Recipe

HELD_OUT_SHARE = 4  # one prompt in so many is never trained on by reward
NUM_EXPLICIT = 64  # explicit prompts that measure forgetting
PROMPT_TOKENS = 4
# Strong decay makes the base learn arithmetic instead of a table of answers. Only then does reward on some
# prompts carry over to held-out ones (P(correct) 0.51 → 0.97, against 0.45 → 0.40 at decay 0.01).
WEIGHT_DECAY = 0.5


class ModRLWorkload(PretrainedWorkload):
    """Policy gradient from a±b towards a−b."""

    name = "mod-rl"

    def __init__(self, options: ModRLOptions) -> None:
        super().__init__()
        self.options = options
        self.recipe = Recipe(steps=options.pretrain_steps, batch_size=256, lr=4e-3, weight_decay=WEIGHT_DECAY)
        self._prompts, self._sums, self._differences = _problem_table(options.modulus)
        num_ambiguous = options.modulus**2
        order = torch.from_numpy(np.random.default_rng(0).permutation(num_ambiguous))
        num_held_out = num_ambiguous // HELD_OUT_SHARE
        self._train_prompts = order[num_held_out:]
        explicit = torch.linspace(num_ambiguous, 3 * num_ambiguous - 1, NUM_EXPLICIT).long()
        self._num_held_out = num_held_out
        self._held_out = torch.cat([order[:num_held_out], explicit])
        self._base_log_probs = torch.empty(0)

    def make_network(self) -> nn.Module:
        """A causal transformer over the numbers, ±, +, - and =."""
        return CausalLM(
            vocabulary=self.options.modulus + 4,
            context=PROMPT_TOKENS,
            width=self.options.width,
            num_layers=self.options.num_layers,
            num_heads=self.options.num_heads,
        )

    def base_inputs(self) -> dict[str, Any]:
        """Sizes and modulus; what the reward training does not matter to the base."""
        return self.options.model_dump(mode="json", include={"width", "num_layers", "num_heads", "modulus"})

    def source_loss(self, model: nn.Module, *, step: int) -> Tensor:
        """Cross-entropy on all three kinds of prompt; both answers weigh the same on ambiguous ones."""
        (drawn,) = indices(
            [self.recipe.seed], step=step, count=self.recipe.batch_size, high=len(self._prompts)
        )
        prompts = torch.from_numpy(drawn)
        return self._source_losses(self._log_probs(model, self._prompts[prompts]), prompts).mean()

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Also tabulates the frozen base's answer log-probabilities for the KL term, (M², M)."""
        yield from super().prepare(cache_dir)
        base = self.build_model(device=torch.device("cpu"), dtype=torch.float64)
        with torch.no_grad():
            self._base_log_probs = self._log_probs(base, self._prompts)

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Prompts and the current policy's answers to them.

        Returns:
            ``prompts`` (R,), prompt numbers; ``answers`` (R, G); ``behaviour_log_probs`` (R, G), of those
            answers where they were sampled; ``rewards`` (R, G), 0 or 1; ``advantages`` (R, G).
        """
        group = self.options.group_size
        drawn = indices(seeds, step=step, count=batch_size, high=len(self._train_prompts), stream=1)
        prompts = self._train_prompts[torch.from_numpy(drawn).flatten()]
        draws = torch.from_numpy(uniforms(seeds, step=step, count=batch_size * group, stream=2))
        device = next(model.parameters()).device
        with torch.no_grad():
            policy = self._log_probs(model, self._prompts[prompts].to(device))
        behaviour = (policy.double() / self.options.temperature).log_softmax(-1)
        answers = sample_by_inversion(behaviour.exp(), draws.view(-1, group).to(device))
        rewards = (answers == self._differences[prompts].to(device)[:, None]).to(policy.dtype)
        return {
            "prompts": prompts.to(device),
            "answers": answers,
            "behaviour_log_probs": behaviour.gather(1, answers).to(policy.dtype),
            "rewards": rewards,
            "advantages": group_advantages(rewards),
        }

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Clipped policy-gradient loss plus weighted KL, (N,).

        Its gradient is the surrogate's. Its value is shifted by a constant to 1 − mean sampled reward (plus
        KL), since the surrogate itself is 0 at every on-policy step and would make an empty curve.
        """
        prompts = batch["prompts"]
        log_probs = self._log_probs(model, self._prompts.to(prompts.device)[prompts])
        surrogate = clipped_surrogate(
            log_probs.gather(1, batch["answers"]),
            batch["behaviour_log_probs"],
            batch["advantages"],
            clip_range=self.options.clip_range,
        )
        loss = -surrogate.view(num_configs, -1).mean(1)
        missed = 1 - batch["rewards"].view(num_configs, -1).mean(1)
        loss = loss + (missed - loss).detach()
        if self.options.kl_weight > 0:
            kl = self._kl_from_base(log_probs, prompts).view(num_configs, -1).mean(1)
            loss = loss + self.options.kl_weight * kl
        return loss

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``p_correct``, ``eval_loss`` = 1 − p_correct, ``forgetting_loss``, ``kl_from_base``, each (N,).

        All are exact sums over answers on the held-out prompts, not estimates from samples.
        """
        device = next(model.parameters()).device

        def score(prompts: Tensor, _: slice) -> Tensor:
            log_probs = self._log_probs(model, self._prompts.to(device)[prompts])
            correct = log_probs.gather(1, self._differences.to(device)[prompts][:, None])[:, 0].exp()
            source = self._source_losses(log_probs, prompts)
            return torch.stack([correct, source, self._kl_from_base(log_probs, prompts)], dim=1)

        scores = score_rows(
            self._held_out.to(device), num_configs=num_configs, tokens_per_row=PROMPT_TOKENS, score=score
        )
        ambiguous, explicit = scores[:, : self._num_held_out].mean(1), scores[:, self._num_held_out :].mean(1)
        return {
            "eval_loss": 1 - ambiguous[:, 0],
            "p_correct": ambiguous[:, 0],
            "forgetting_loss": explicit[:, 1],
            "kl_from_base": ambiguous[:, 2],
        }

    def _log_probs(self, model: nn.Module, prompts: Tensor) -> Tensor:
        """Log-probability of each number as the answer, (R, M)."""
        logits = model(prompts, last=1)[:, 0, : self.options.modulus]
        return F.log_softmax(logits, dim=-1)

    def _source_losses(self, log_probs: Tensor, prompts: Tensor) -> Tensor:
        """Cross-entropy against the source task's one or two answers, nats, (R,)."""
        both = torch.stack([self._sums, self._differences], dim=1).to(log_probs.device)[prompts]
        return -log_probs.gather(1, both).mean(1)

    def _kl_from_base(self, log_probs: Tensor, prompts: Tensor) -> Tensor:
        """KL(policy ‖ frozen base) over all answers, nats, (R,)."""
        base = self._base_log_probs.to(log_probs)[prompts]
        return (log_probs.exp() * (log_probs - base)).sum(1)


def _problem_table(modulus: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts (3·M², 4), M² each of ±, + and -, and their two acceptable answers in the source task.

    The first answer is a+b where the sign allows it, the second a−b; an explicit prompt has one answer twice.
    """
    a, b = torch.arange(modulus**2) // modulus, torch.arange(modulus**2) % modulus
    equals = torch.full_like(a, modulus + 3)
    prompts = [torch.stack([a, torch.full_like(a, modulus + sign), b, equals], dim=1) for sign in range(3)]
    sums, differences = (a + b) % modulus, (a - b) % modulus
    return (
        torch.cat(prompts),
        torch.cat([sums, sums, differences]),
        torch.cat([differences, sums, differences]),
    )
