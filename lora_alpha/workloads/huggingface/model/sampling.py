"""Completions from a causal language model as a function of given draws.

Prompts are padded on the left; transformers' own generation keeps the cache, and each next token is decided
here: by inversion of one uniform number, or the likeliest where there are no draws.

Shapes: R rows, S new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from lora_alpha.workloads.policy_gradient import sample_by_inversion

# Tokens of prompts and completions that are kept in the cache at once.
CPU_SAMPLED, GPU_SAMPLED = 16_384, 262_144


def prompts_at_once(device: torch.device, *, rows_each: int, tokens: int) -> int:
    """How many prompts to complete together, each in ``rows_each`` rows of at most ``tokens`` tokens."""
    limit = GPU_SAMPLED if device.type == "cuda" else CPU_SAMPLED
    return max(1, limit // (rows_each * tokens))


@dataclass(frozen=True)
class Completions:
    """What was sampled.

    Attributes:
        tokens: Of each row, up to and with the end of text if it came, else as many as were allowed.
        log_probs: Of those tokens where they were sampled, temperature included.
    """

    tokens: list[list[int]]
    log_probs: list[list[float]]


@torch.no_grad()
def complete(
    model: Any,
    prompts: Sequence[NDArray[np.int32]],
    *,
    num_new: int,
    end: int | None,
    draws_RS: Tensor | None,
    temperature: float = 1.0,
) -> Completions:
    """Continue every prompt by at most ``num_new`` tokens.

    Args:
        model: A causal language model, adapted or not.
        prompts: Tokens of each row, at least one each.
        num_new: S.
        end: Token that ends a completion, None if the tokenizer has none.
        draws_RS: Numbers in [0, 1), one a token; None takes the likeliest token each time.
        temperature: Logits are divided by it.
    """
    device = next(model.parameters()).device
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        real[row, width - len(prompt) :] = 1
    chooser = _Chooser(draws_RS, temperature)
    # An explicit configuration, so that a folder's generation_config.json (top_p, penalties) has no say.
    settings = GenerationConfig(
        max_new_tokens=num_new,
        do_sample=False,
        use_cache=True,
        eos_token_id=end,
        pad_token_id=0 if end is None else end,
    )
    before, was_training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()  # with gradient checkpointing a training model keeps no cache
    try:
        whole = model.generate(
            input_ids=tokens.to(device),
            attention_mask=real.to(device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([chooser]),
        )
    finally:
        model.generation_config = before
        model.train(was_training)
    new = whole[:, width:].cpu().tolist()
    log_probs = torch.stack(chooser.log_probs, dim=1).cpu().tolist()
    lengths = [row.index(end) + 1 if end in row else len(row) for row in new]
    return Completions(
        tokens=[row[:length] for row, length in zip(new, lengths, strict=True)],
        log_probs=[row[:length] for row, length in zip(log_probs, lengths, strict=True)],
    )


class _Chooser(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token a row to greedy decoding: the one that this row's draw means."""

    def __init__(self, draws_RS: Tensor | None, temperature: float) -> None:
        self.draws_RS = draws_RS
        self.temperature = temperature
        self.log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        del input_ids
        # Sums over a whole vocabulary need more than float32 has, or the last tokens are never drawn.
        log_probs_RV = (scores.double() / self.temperature).log_softmax(-1)
        if self.draws_RS is None:
            chosen_R1 = log_probs_RV.argmax(-1, keepdim=True)
        else:
            step = len(self.log_probs)
            draws = self.draws_RS[:, step : step + 1].to(log_probs_RV).contiguous()
            chosen_R1 = sample_by_inversion(log_probs_RV.exp(), draws)
        self.log_probs.append(log_probs_RV.gather(1, chosen_R1)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_R1, 0.0)
