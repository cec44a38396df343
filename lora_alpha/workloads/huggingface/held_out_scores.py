"""Held-out loss and divergence from the frozen base, in pieces that fit the memory.

Shapes: N configurations, R rows of a piece, T tokens, K chosen tokens of a piece, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.models.packed import PackedLinear
from lora_alpha.workloads.held_out import CPU_TOKENS, GPU_TOKENS
from lora_alpha.workloads.huggingface.data.batching import padded_rows
from lora_alpha.workloads.huggingface.data.tokens import TokenSet
from lora_alpha.workloads.huggingface.model.token_losses import CHUNK_LOGITS, losses_of, states_at


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` is its frozen base."""
    packed = [module for module in model.modules() if isinstance(module, PackedLinear)]
    before = [layer.enabled for layer in packed]
    for layer in packed:
        layer.enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(packed, before, strict=True):
            layer.enabled = enabled


@torch.no_grad()
def score_examples(
    model: Any, examples: TokenSet, *, num_configs: int, with_divergence: bool, most: int | None = None
) -> dict[str, Tensor]:
    """Mean loss over all learnt tokens of ``examples``, and divergence from the base, by configuration.

    Rows are at most ``most`` wide, the positions that the model has.

    Returns:
        ``loss`` (N,), nats per learnt token. With ``with_divergence`` also ``divergence_from_base`` (N,): the
        mean KL(frozen base ‖ adapted model) of next-token distributions, nats per token, over the tokens of
        the prompts, which training does not teach; over all tokens where there are no prompts.
    """
    device = next(model.parameters()).device
    names = ("loss", "divergence_from_base") if with_divergence else ("loss",)
    sums = {name: torch.zeros(num_configs, dtype=torch.float64, device=device) for name in names}
    counts = dict.fromkeys(sums, 0)
    has_prompts = bool((examples.prompt_lengths > 1).any())
    for piece in pieces(examples, num_configs=num_configs, device=device, most=most):
        learnt_RT = piece["learnt"]
        given_RT = (piece["real"] & ~learnt_RT) if has_prompts else piece["real"].clone()
        given_RT[:, 0] = False
        chosen_RT = learnt_RT | given_RT if with_divergence else learnt_RT
        states_NK, head = _states(model, piece, chosen_RT, num_configs=num_configs)
        is_learnt_K, labels_K = learnt_RT[chosen_RT], piece["tokens"][chosen_RT]
        learnt = states_NK[:, is_learnt_K]
        losses = losses_of(learnt.flatten(0, 1), labels_K[is_learnt_K].repeat(num_configs), head)
        sums["loss"] += losses.view(num_configs, -1).double().sum(1)
        counts["loss"] += int(is_learnt_K.sum())
        if with_divergence:
            is_given_K = given_RT[chosen_RT]
            with adapters_disabled(model):
                base_K, _ = states_at(model, piece, given_RT)
            sums["divergence_from_base"] += _divergence(base_K, states_NK[:, is_given_K], head)
            counts["divergence_from_base"] += int(is_given_K.sum())
    return {name: sums[name] / max(1, counts[name]) for name in names}


def pieces(
    examples: TokenSet, *, num_configs: int, device: torch.device, most: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """All examples as padded rows, similar lengths together, as many as N times fit one forward pass."""
    limit = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
    order = np.argsort(examples.lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        width = int(examples.lengths[order[start]])
        count = max(1, limit // (num_configs * width))
        batch = padded_rows(examples, order[start : start + count], most=most)
        yield {name: value.to(device) for name, value in batch.items()}
        start += count


def repeated(batch: dict[str, Tensor], num_configs: int) -> dict[str, Tensor]:
    """The same rows for every configuration, (N·R, …)."""
    return {name: value.repeat(num_configs, *([1] * (value.ndim - 1))) for name, value in batch.items()}


def _states(
    model: Any, piece: dict[str, Tensor], chosen_RT: Tensor, *, num_configs: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    states, head = states_at(model, repeated(piece, num_configs), chosen_RT.repeat(num_configs, 1))
    return states.view(num_configs, -1, states.shape[-1]), head


def _divergence(base_K: Tensor, adapted_NK: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum over K of KL(base ‖ adapted), (N,) float64."""
    num_configs = len(adapted_NK)
    width = int(getattr(head, "out_features", base_K.shape[-1]))
    size = max(1, CHUNK_LOGITS // (width * num_configs))
    total = torch.zeros(num_configs, dtype=torch.float64, device=base_K.device)
    for start in range(0, len(base_K), size):
        base = _log_probs(head(base_K[start : start + size]))
        adapted = _log_probs(head(adapted_NK[:, start : start + size]))
        total += F.kl_div(adapted, base.expand_as(adapted), reduction="none", log_target=True).sum((1, 2))
    return total


def _log_probs(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
