"""Cross-entropy of chosen tokens of a causal language model, without ever holding all logits.

The decoder's hidden states are taken at the positions that predict a chosen token only, and go through the
output layer in chunks, each recomputed in the backward pass. Families that do more to their logits than one
linear layer (a soft cap, a scale) are noticed when the model is loaded, and read through their own forward.

Shapes: R rows, T tokens, M chosen tokens, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lora_alpha.workloads.huggingface.model.targets import output_layer
from lora_alpha.workloads.huggingface.problems import problem

# Logits in one chunk: 64 MiB in float32, far above what dispatch costs and far below a model's own size.
CHUNK_LOGITS = 2**24
PROBE_TOKENS = 6
# Relative error of logits between two ways to compute them: half precision rounds at 2^-8 in every layer, and
# another mask may mean another attention kernel. What is looked for (a cap, a look ahead) changes far more.
EXACT, ROUNDED = 1e-5, 5e-2


def chosen_losses(
    model: Any, batch: Mapping[str, Tensor], *, chosen: str = "learnt", temperature: float = 1.0
) -> Tensor:
    """−log p of every chosen token given what comes before it, nats, (R, T); 0 elsewhere.

    Args:
        model: A causal language model, adapted or not.
        batch: ``tokens`` (R, T), the mask ``chosen`` (R, T) of tokens to score, and for packed rows
            ``segments`` and ``positions``.
        chosen: Which mask of the batch.
        temperature: Logits are divided by it.
    """
    mask_RT = batch[chosen].clone()
    mask_RT[:, 0] = False
    tokens_RT = batch["tokens"]
    states_MH, head = states_at(model, batch, mask_RT)
    losses_M = losses_of(states_MH, tokens_RT[mask_RT], head, temperature=temperature)
    losses_RT = torch.zeros(tokens_RT.shape, dtype=losses_M.dtype, device=losses_M.device)
    return losses_RT.masked_scatter(mask_RT, losses_M)


def states_at(
    model: Any, batch: Mapping[str, Tensor], mask_RT: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What predicts the tokens in ``mask_RT``, row by row: states (M, ·) and the map from them to logits.

    The states are hidden ones and the map is the output layer, or they are logits already and the map does
    nothing, where the family's logits are more than one linear layer.
    """
    extra = {}
    if "segments" in batch:
        extra = {
            "attention_mask": causal_mask(batch["segments"], dtype=compute_dtype(model)),
            "position_ids": batch["positions"],
        }
    before = mask_RT[:, 1:]
    if getattr(model, "logits_are_linear", False):
        states = model.base_model(input_ids=batch["tokens"], use_cache=False, **extra)[0]
        head = output_layer(model)
        assert head is not None
        return states[:, :-1][before], head
    logits = model(input_ids=batch["tokens"], use_cache=False, **extra).logits
    return logits[:, :-1][before], nn.Identity()


@torch.no_grad()
def check_causal_lm(model: Any) -> None:
    """Find out how the model makes logits, and refuse one that looks ahead.

    Sets ``model.logits_are_linear``: whether its logits are its output layer on its decoder's hidden states.

    Raises:
        InvalidSpec: If a later token changes an earlier one's prediction: the model is no causal one.
    """
    device = next(model.parameters()).device
    vocabulary = int(model.config.get_text_config().vocab_size)
    first = (torch.arange(PROBE_TOKENS, device=device) * 7 + 1) % vocabulary
    second = first.clone()
    second[-1] = (second[-1] + 1) % vocabulary
    logits = model(input_ids=torch.stack([first, second]), use_cache=False).logits.float()
    scale = logits.abs().max() + 1e-6
    close = _tolerance(model) * scale
    if (logits[0, :-1] - logits[1, :-1]).abs().max() > close:
        raise problem(
            "model",
            f"{type(model).__name__} lets a token see those after it, so it is no causal language model: "
            "take a decoder such as LLaMA, Qwen or GPT-2",
        )
    head, decoder = output_layer(model), model.base_model
    linear = False
    # A soft cap is all but linear on the small logits of an untrained model: it is asked for by name.
    capped = getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None
    if head is not None and decoder is not model and not capped:
        states = decoder(input_ids=first[None], use_cache=False)[0]
        if states.shape[-1] == getattr(head, "in_features", None):
            linear = bool((head(states).float() - logits[:1]).abs().max() <= close)
    model.logits_are_linear = linear


@torch.no_grad()
def check_packing(model: Any, *, max_tokens: int) -> None:
    """Refuse a model in which examples of one packed row see each other, their place in it, or too much.

    Two short examples in one row must give what the second gives alone, and one of ``max_tokens`` under our
    mask what it gives under the model's own: a sliding window shorter than that would be lost.

    Raises:
        InvalidSpec: If the model takes no mask or positions of ours, or mixes tokens by other means.
    """
    device = next(model.parameters()).device
    vocabulary = int(model.config.get_text_config().vocab_size)
    tokens = (torch.arange(2 * PROBE_TOKENS, device=device) * 7 + 1) % vocabulary
    place = torch.arange(PROBE_TOKENS, device=device)
    segments = torch.tensor([1, 2], device=device).repeat_interleave(PROBE_TOKENS)
    alone = model(input_ids=tokens[None, PROBE_TOKENS:], use_cache=False).logits.float()
    try:
        packed = model(
            input_ids=tokens[None],
            attention_mask=causal_mask(segments[None], dtype=compute_dtype(model)),
            position_ids=torch.cat([place, place])[None],
            use_cache=False,
        ).logits.float()
    except (TypeError, ValueError, RuntimeError):
        packed = torch.full_like(alone, torch.inf).repeat(1, 2, 1)
    difference = (packed[:, PROBE_TOKENS:] - alone).abs().max()
    if not difference <= _tolerance(model) * (alone.abs().max() + 1e-6):
        raise problem(
            "packing",
            f"{type(model).__name__} does not keep examples of one row apart: turn packing off, rows are "
            "padded then",
        )
    place = torch.arange(max_tokens, device=device)
    long = {"input_ids": ((place * 7 + 1) % vocabulary)[None], "use_cache": False}
    mask = causal_mask(torch.ones_like(place)[None], dtype=compute_dtype(model))
    own = model.base_model(**long)[0][0, -PROBE_TOKENS:].float()
    ours = model.base_model(**long, attention_mask=mask, position_ids=place[None])[0][0, -PROBE_TOKENS:]
    if not ((ours.float() - own).norm(dim=1) <= _tolerance(model) * own.norm(dim=1)).all():
        raise problem(
            "packing",
            f"{type(model).__name__} attends within a window of fewer than max_tokens = {max_tokens} tokens, "
            "which packed rows would undo: turn packing off, or lower max_tokens",
        )


def _tolerance(model: Any) -> float:
    return EXACT if compute_dtype(model) in {torch.float32, torch.float64} else ROUNDED


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype that the model computes in."""
    dtype: torch.dtype = next(model.parameters()).dtype
    return dtype


def causal_mask(segments_RT: Tensor, *, dtype: torch.dtype) -> Tensor:
    """An additive mask (R, 1, T, T): 0 where a token may attend, the lowest number elsewhere.

    A token attends to itself and to earlier tokens of its own segment. Additive, because every attention
    implementation of transformers takes that.
    """
    num_tokens = segments_RT.shape[1]
    same = segments_RT[:, :, None] == segments_RT[:, None, :]
    earlier = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=segments_RT.device).tril()
    blocked = ~(same & earlier)
    mask = torch.zeros(blocked.shape, dtype=dtype, device=segments_RT.device)
    return mask.masked_fill(blocked, torch.finfo(dtype).min)[:, None]


def losses_of(
    states_MH: Tensor, labels_M: Tensor, head: Callable[[Tensor], Tensor], *, temperature: float = 1.0
) -> Tensor:
    """−log p of each label under ``head`` of its state, (M,), float32 (float64 in a float64 model)."""
    width = getattr(head, "out_features", states_MH.shape[-1])
    size = max(1, CHUNK_LOGITS // int(width))

    def losses(states: Tensor, labels: Tensor) -> Tensor:
        logits = head(states)
        if logits.dtype != torch.float64:
            logits = logits.float()
        return F.cross_entropy(logits / temperature, labels, reduction="none")

    if len(states_MH) <= size:
        return losses(states_MH, labels_M)
    parts = []
    for states, labels in zip(torch.split(states_MH, size), torch.split(labels_M, size), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(losses, states, labels, use_reentrant=False))
        else:
            parts.append(losses(states, labels))
    return torch.cat(parts)
