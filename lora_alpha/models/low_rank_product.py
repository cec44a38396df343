"""The sum of a frozen linear layer and every group's low-rank product, as one autograd operation.

Autograd over slices would write a full-size zero tensor per slice in the backward pass (a fifth of a step on
the small networks), so the sum is differentiated by hand: both passes write into slices of one result.

Shapes: N configurations, G configurations of one group, M rows per configuration, I in features, O out
features, R rank; ``y_RO`` and ``grad_RO`` have all N·M rows in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Products with fewer columns than this are computed transposed: as (M, R) results MKL takes up to 5 times as
# long for them (one thread, M 32 … 512, R 1 … 8; equal from R = 16).
NARROW = 16


@dataclass(frozen=True)
class GroupFactors:
    """One group's part of the sum: configurations ``start … stop-1``, A (G, R, I), B (G, O, R), s (G,)."""

    start: int
    stop: int
    A: Tensor
    B: Tensor
    scale: Tensor


def low_rank_sum(
    x_NMI: Tensor,
    weight_OI: Tensor,
    bias_O: Tensor | None,
    groups: Sequence[GroupFactors],
    *,
    seen_NMI: Tensor | None = None,
) -> Tensor:
    """The outputs W0·x + bias + s·B·A·x of all configurations, each with its own s, A and B.

    Differentiable in x and in every A and B, any number of times; W0, bias and s are constants. A
    configuration's result and gradients depend on its own rows and factors alone.

    Args:
        x_NMI: Inputs, contiguous.
        weight_OI: The frozen weight; any strides.
        bias_O: The frozen bias or None.
        groups: Parts that together cover 0 … N-1 in order.
        seen_NMI: What every A is applied to, where that is not x (x after dropout).

    Returns:
        Outputs (N, M, O).
    """
    spans = tuple((group.start, group.stop) for group in groups)
    flat = [tensor for group in groups for tensor in (group.A, group.B, group.scale)]
    y_RO: Tensor = _LowRankSum.apply(x_NMI, seen_NMI, weight_OI, bias_O, spans, *flat)  # type: ignore[no-untyped-call]
    # Viewed out here: a view that is made inside must not be changed in place, and models do that.
    return y_RO.view(*x_NMI.shape[:2], -1)


class _LowRankSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NMI: Tensor,
        seen_NMI: Tensor | None,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        spans: tuple[tuple[int, int], ...],
        *flat: Tensor,
    ) -> Tensor:
        num_configs, num_rows, _ = x_NMI.shape
        y_RO = F.linear(x_NMI.view(num_configs * num_rows, -1), weight_OI, bias_O)
        y_NMO = y_RO.view(num_configs, num_rows, -1)
        ctx.separate = seen_NMI is not None
        seen_NMI = x_NMI if seen_NMI is None else seen_NMI
        hiddens = []
        for index, (start, stop) in enumerate(spans):
            a_GRI, b_GOR, scale_G = flat[3 * index : 3 * index + 3]
            hidden_GMR = _hidden(seen_NMI[start:stop], a_GRI, scale_G)
            y_NMO[start:stop].baddbmm_(hidden_GMR, _transposed(b_GOR))
            hiddens.append(hidden_GMR)
        ctx.spans = spans
        ctx.save_for_backward(seen_NMI, weight_OI, *flat, *hiddens)
        return y_RO

    @staticmethod
    def backward(ctx: Any, grad_RO: Tensor) -> tuple[Tensor | None, ...]:
        seen_NMI, weight_OI, *saved = ctx.saved_tensors
        num_groups = len(ctx.spans)
        flat, hiddens = saved[: 3 * num_groups], saved[3 * num_groups :]
        wants_x, wants_seen, _, _, _, *wants = ctx.needs_input_grad
        grad_RO = grad_RO.contiguous()
        num_configs, num_rows, _ = seen_NMI.shape
        grad_NMO = grad_RO.view(num_configs, num_rows, -1)
        grad_x: Tensor | None = None
        if wants_x:
            grad_x = (grad_RO @ weight_OI).view(num_configs, num_rows, -1)
        grad_seen = grad_x
        if ctx.separate:
            grad_seen = torch.empty_like(seen_NMI) if wants_seen else None
        beta = 0 if ctx.separate else 1  # with 0 what is there does not count, be it NaN
        grads: list[Tensor | None] = []
        for index, (start, stop) in enumerate(ctx.spans):
            a_GRI, b_GOR, scale_G = flat[3 * index : 3 * index + 3]
            wants_A, wants_B, _ = wants[3 * index : 3 * index + 3]
            grad_GMO = grad_NMO[start:stop]
            grad_A = None
            if wants_A or grad_seen is not None:
                grad_hidden_GMR = _product(grad_GMO, b_GOR).mul_(scale_G[:, None, None])
                if wants_A:
                    grad_A = torch.bmm(grad_hidden_GMR.mT, seen_NMI[start:stop])
                if grad_seen is not None:
                    grad_seen[start:stop].baddbmm_(grad_hidden_GMR, a_GRI, beta=beta)
            grad_B = None
            if wants_B:
                # Kept values have no history: a second derivative needs its own.
                second = torch.is_grad_enabled()
                hidden_GMR = _hidden(seen_NMI[start:stop], a_GRI, scale_G) if second else hiddens[index]
                grad_B = _product(grad_GMO.mT, hidden_GMR)
            grads += [grad_A, grad_B, None]
        return grad_x, grad_seen if ctx.separate else None, None, None, None, *grads


def _hidden(x_GMI: Tensor, a_GRI: Tensor, scale_G: Tensor) -> Tensor:
    return _product(x_GMI, a_GRI.mT).mul_(scale_G[:, None, None])


def _product(left_GXY: Tensor, right_GYR: Tensor) -> Tensor:
    """``left @ right``, a view of its transpose where it is narrow."""
    if right_GYR.shape[2] < NARROW:
        return torch.bmm(_transposed(right_GYR), left_GXY.mT).mT
    return torch.bmm(left_GXY, right_GYR)


def _transposed(narrow_GXR: Tensor) -> Tensor:
    """The transpose; of a single column as rows by its strides too, which MKL multiplies 4 times as fast."""
    if narrow_GXR.shape[2] == 1:
        return narrow_GXR.reshape(narrow_GXR.shape[0], 1, -1)
    return narrow_GXR.mT
