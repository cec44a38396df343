"""``carry``: reasoning SFT. A base that adds digit by digit without carries learns to carry.

A problem is written ``a+b=`` followed by the answer's digits, and only the answer counts in the loss.
Problems are held out by a hash of (a, b): no training batch ever shows one of them.

Shapes: N configurations, B examples, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.catalog.builtin_text import CarryOptions
from lora_alpha.models.causal_lm import CausalLM
from lora_alpha.workloads.base import Batch
from lora_alpha.workloads.counter_rng import scramble, uniforms
from lora_alpha.workloads.held_out import score_rows
from lora_alpha.workloads.pretrained import PretrainedWorkload
from lora_alpha.workloads.pretraining import Recipe

PLUS, EQUALS, VOCABULARY = 10, 11, 12
HELD_OUT_SHARE = 16  # one problem in so many is never trained on
NUM_HELD_OUT = 128
EVALUATION_STEP = 2**31  # a step that no training reaches: the held-out problems are drawn there

Digits = NDArray[np.int64]


class CarryWorkload(PretrainedWorkload):
    """Addition with carries, from carry-free addition."""

    name = "carry"

    def __init__(self, options: CarryOptions) -> None:
        super().__init__()
        self.options = options
        self.recipe = Recipe(steps=options.pretrain_steps, batch_size=256, lr=4e-3)

    def make_network(self) -> nn.Module:
        """A causal transformer over 12 symbols."""
        return CausalLM(
            vocabulary=VOCABULARY,
            context=3 * self.options.digits + 2,
            width=self.options.width,
            num_layers=self.options.num_layers,
            num_heads=self.options.num_heads,
        )

    def base_inputs(self) -> dict[str, Any]:
        """Sizes and notation; the target does not matter to the base."""
        return self.options.model_dump(mode="json", exclude={"target", "pretrain_steps"})

    def source_loss(self, model: nn.Module, *, step: int) -> Tensor:
        """Answer cross-entropy on carry-free problems."""
        a, b = draw_problems(
            [self.recipe.seed],
            step=step,
            count=self.recipe.batch_size,
            digits=self.options.digits,
            kind="free",
        )
        return self._answer_losses(model, self._tokens(a, b)).mean()

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Tokens (N·B, T+1) of fresh problems."""
        a, b = draw_problems(
            seeds, step=step, count=batch_size, digits=self.options.digits, kind=self.options.target, stream=1
        )
        return {"tokens": self._tokens(a, b).to(_device(model))}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Mean cross-entropy of the answer's digits, nats, (N,)."""
        return self._answer_losses(model, batch["tokens"]).view(num_configs, -1).mean(1)

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss``, ``accuracy`` (whole answers right) and ``forgetting_loss``, each (N,)."""
        scores = score_rows(
            self._held_out.to(_device(model)),
            num_configs=num_configs,
            tokens_per_row=3 * self.options.digits + 2,
            score=lambda rows, _: self._loss_and_exactness(model, rows),
        )
        scores = scores.view(num_configs, 2, -1, 2).mean(2)
        return {
            "eval_loss": scores[:, 0, 0],
            "forgetting_loss": scores[:, 1, 0],
            "accuracy": scores[:, 0, 1],
        }

    @cached_property
    def _held_out(self) -> Tensor:
        """NUM_HELD_OUT problems of the target, then as many without a carry."""
        rows = [
            self._tokens(
                *draw_problems(
                    [0],
                    step=EVALUATION_STEP,
                    count=NUM_HELD_OUT,
                    digits=self.options.digits,
                    kind=kind,
                    held_out=True,
                )
            )
            for kind in (self.options.target, "free")
        ]
        return torch.cat(rows)

    def _loss_and_exactness(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Mean answer cross-entropy and whether the whole answer is right, (rows, 2)."""
        logits = self._answer_logits(model, tokens)
        answers = tokens[:, -logits.shape[1] :]
        losses = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
        # under teacher forcing all digits are the arg-max exactly when greedy decoding answers right
        right = (logits.argmax(-1) == answers).all(1)
        return torch.stack([losses.view(answers.shape).mean(1), right.to(losses.dtype)], dim=1)

    def _tokens(self, a: Digits, b: Digits) -> Tensor:
        """``a + b = answer`` as (rows, 3·digits + 3) symbols; most significant digit of a and b first."""
        a, b = a.reshape(-1, self.options.digits), b.reshape(-1, self.options.digits)
        answer = add_digits(a, b)
        if self.options.order == "ones-first":
            answer = answer[:, ::-1]
        plus, equals = np.full((len(a), 1), PLUS), np.full((len(a), 1), EQUALS)
        return torch.from_numpy(np.concatenate([a, plus, b, equals, answer], axis=1))

    def _answer_logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        logits: Tensor = model(tokens[:, :-1], last=self.options.digits + 1)
        return logits

    def _answer_losses(self, model: nn.Module, tokens: Tensor) -> Tensor:
        logits = self._answer_logits(model, tokens)
        answers = tokens[:, -logits.shape[1] :]
        return F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")


def draw_problems(
    seeds: Sequence[int],
    *,
    step: int,
    count: int,
    digits: int,
    kind: str,
    stream: int = 0,
    held_out: bool = False,
) -> tuple[Digits, Digits]:
    """Addends of ``count`` problems per seed, each (len(seeds), count, digits), most significant first.

    Args:
        seeds: One seed per configuration.
        step: 0-based step.
        count: Problems per seed.
        digits: Digits of each addend.
        kind: ``free``: no column exceeds 9; ``carry``: at least one does; ``all``: any.
        stream: Separates uses that share seed and step.
        held_out: Draw only held-out problems instead of only the others.
    """
    shape = (len(seeds), count, digits)
    a, b = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    wrong = np.ones(shape[:2], bool)
    attempt = 0
    while wrong.any():
        draws = uniforms(seeds, step=step, count=2 * count * digits, stream=stream + 16 * attempt)
        first, second = draws.reshape(len(seeds), 2, count, digits).swapaxes(0, 1)
        if kind == "free":  # uniform over the 55 pairs of digits whose sum is at most 9
            new_a, new_b = _PAIRS[(first * len(_PAIRS)).astype(np.int64)].transpose(3, 0, 1, 2)
        else:
            new_a, new_b = (first * 10).astype(np.int64), (second * 10).astype(np.int64)
        a[wrong], b[wrong] = new_a[wrong], new_b[wrong]
        wrong = is_held_out(a, b) != held_out
        if kind == "carry":
            wrong |= ~((a + b) > 9).any(-1)
        attempt += 1
    return a, b


def is_held_out(a: Digits, b: Digits) -> NDArray[np.bool_]:
    """Whether a problem belongs to the held-out sixteenth; the last axis is digits."""
    powers = 10 ** np.arange(a.shape[-1], dtype=np.uint64)
    number_a, number_b = (a.astype(np.uint64) * powers).sum(-1), (b.astype(np.uint64) * powers).sum(-1)
    mixed = scramble(number_a * np.uint64(10**9) + number_b + np.uint64(1))
    return np.asarray(mixed % np.uint64(HELD_OUT_SHARE) == 0)


def add_digits(a: Digits, b: Digits) -> Digits:
    """Digits of a + b, one more than the addends have; the last axis is digits, most significant first.

    >>> add_digits(np.array([[9, 5]]), np.array([[0, 7]])).tolist()
    [[1, 0, 2]]
    """
    sums = np.concatenate([np.zeros_like(a[..., :1]), a + b], axis=-1)
    for column in range(sums.shape[-1] - 1, 0, -1):
        sums[..., column - 1] += sums[..., column] // 10
        sums[..., column] %= 10
    return sums


_PAIRS = np.array([(x, y) for x in range(10) for y in range(10 - x)], dtype=np.int64)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
