"""One call for many tensors: torch's private multi-tensor kernels, and public ones where a torch lacks them.

The private names are what ``torch.optim`` itself calls; no release promises them. Results are the same to the
bit, only slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

HAS_NORM = hasattr(torch, "_foreach_norm")
HAS_MULTIPLY = hasattr(torch, "_foreach_mul_")
HAS_ADD = hasattr(torch, "_foreach_add_")
HAS_ADAMW = hasattr(torch, "_fused_adamw_")


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """‖tensor‖ of each, over all its elements; scalars of its dtype."""
    if HAS_NORM:
        return list(torch._foreach_norm(list(tensors)))
    return [torch.linalg.vector_norm(tensor) for tensor in tensors]


def multiply_(tensors: Sequence[Tensor], factor: float) -> None:
    """Multiply each by ``factor``, in place."""
    if HAS_MULTIPLY:
        torch._foreach_mul_(list(tensors), factor)
        return
    for tensor in tensors:
        tensor.mul_(factor)


def add_(tensors: Sequence[Tensor], others: Sequence[Tensor], *, factor: float) -> None:
    """Add ``factor`` times its counterpart in ``others`` to each, in place."""
    if HAS_ADD:
        torch._foreach_add_(list(tensors), list(others), alpha=factor)
        return
    for tensor, other in zip(tensors, others, strict=True):
        tensor.add_(other, alpha=factor)


def adamw_(
    parameters: list[Tensor],
    gradients: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    *,
    count: Tensor,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    eps: float,
) -> None:
    """One step of AdamW on each parameter; changes parameters and moments in place.

    Args:
        parameters: What is trained.
        gradients: One for each parameter, of its shape; as are both moments.
        exp_avgs: Running mean of the gradients.
        exp_avg_sqs: Running mean of their squares.
        count: Number of this step, 1 for the first: a float32 scalar on the parameters' device.
        lr: Learning rate η.
        betas: Decay rates of the two running means.
        weight_decay: λ of w ← w − η·λ·w.
        eps: Added to the root of the second moment.
    """
    beta1, beta2 = betas
    settings: dict[str, Any] = {
        "lr": lr,
        "beta1": beta1,
        "beta2": beta2,
        "weight_decay": weight_decay,
        "eps": eps,
        "amsgrad": False,
        "maximize": False,
    }
    if HAS_ADAMW:
        torch._fused_adamw_(
            parameters,
            gradients,
            exp_avgs,
            exp_avg_sqs,
            [],
            [count] * len(parameters),
            **settings,
        )
        return
    adamw(
        parameters,
        gradients,
        exp_avgs,
        exp_avg_sqs,
        [],
        [count - 1 for _ in parameters],  # it counts each by itself
        fused=True,
        **settings,
    )
