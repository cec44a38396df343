"""How well a realised update points down the full-weight gradient, from token Grams.

Shape legend: N configurations, T tokens (rows through a layer), r rank, I in, O out.

``purity = cos(δW, -G) = -⟨G, δW⟩ / (‖G‖·‖δW‖)``, with G = ∂loss/∂W at the step's start and
``δW = s((B+δB)(A+δA) - BA)`` the change that really happened, momentum and weight decay included. A step of
full fine-tuning by plain gradient descent has purity 1. With inputs x_t and output gradients g_t of the
layer ``G = Σ_t g_t·x_tᵀ``, hence ``⟨G, δW⟩ = Σ_t g_tᵀ·δW·x_t`` and ``‖G‖² = Σ_tu (x_t·x_u)(g_t·g_u)``: G of a
configuration is never stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOKEN_BLOCK = 1024  # tokens of one Gram block: 1024² numbers a configuration
BLOCK_BYTES = 2**28  # of copies of inputs and gradients at a time, as if in float64
ROW_BLOCK = 64  # rows of G held at a time where that is cheaper than token Grams


@dataclass(frozen=True)
class Descent:
    """One layer's step against its gradient, each (N,) float64.

    Attributes:
        inner: ⟨G, δW⟩ in units of the loss: its first-order change.
        gradient_norm: ‖G‖_F.
        step_norm: ‖δW‖_F.
    """

    inner: Tensor
    gradient_norm: Tensor
    step_norm: Tensor

    @property
    def purity(self) -> Tensor:
        """cos(δW, -G) in [-1, 1]; 0 where either is 0."""
        size = self.gradient_norm * self.step_norm
        return torch.where(size == 0, 0.0, -self.inner / torch.where(size == 0, 1.0, size))


def descent(
    inputs: Tensor,
    output_gradients: Tensor,
    *,
    lora_A: Tensor,
    lora_B: Tensor,
    delta_A: Tensor,
    delta_B: Tensor,
    scale: Tensor,
    step_norm: Tensor,
    gradient_norm: Tensor,
) -> Descent:
    """The realised step of one layer against its full-weight gradient.

    Products over tokens run in the precision of the inputs (float32 at least), sums in float64.

    Args:
        inputs: x, (N, T, I), of the step's batch.
        output_gradients: ∂loss/∂(layer output), (N, T, O), of each configuration's own mean loss.
        lora_A: Before the step, (N, r, I).
        lora_B: Before the step, (N, O, r).
        delta_A: Change by the step, (N, r, I).
        delta_B: Change by the step, (N, O, r).
        scale: s, (N,).
        step_norm: ‖δW‖_F from :func:`~lora_alpha.dynamics.signal_drift.step_statistics`, (N,).
        gradient_norm: ‖G‖_F from :func:`gradient_norms`, (N,).
    """
    dtype = _working_dtype(inputs)
    A, B, dA, dB = (tensor.to(dtype) for tensor in (lora_A, lora_B, delta_A, delta_B))
    inner = torch.empty_like(step_norm)
    for rows in _config_blocks(inputs, output_gradients):
        x, g = inputs[rows].to(dtype), output_gradients[rows].to(dtype)
        # δW/s = δB·(A + δA) + B·δA, seen by each token from both sides.
        by_B = ((g @ dB[rows]) * (x @ (A[rows] + dA[rows]).mT)).sum(dim=(1, 2), dtype=torch.float64)
        by_A = ((g @ B[rows]) * (x @ dA[rows].mT)).sum(dim=(1, 2), dtype=torch.float64)
        inner[rows] = by_B + by_A
    return Descent(scale.double() * inner, gradient_norm, step_norm)


def gradient_norms(inputs: Tensor, output_gradients: Tensor) -> Tensor:
    """‖Σ_t g_t·x_tᵀ‖_F of each configuration, (N,) float64.

    By whichever needs fewer products: token Grams (T²·(I+O)) or G in blocks of rows (T·I·O).

    Args:
        inputs: x, (N, T, I).
        output_gradients: g, (N, T, O).
    """
    dtype = _working_dtype(inputs)
    num_configs, num_tokens, num_in = inputs.shape
    num_out = output_gradients.shape[2]
    by_tokens = num_tokens * (num_in + num_out) <= num_in * num_out
    squared = torch.zeros(num_configs, dtype=torch.float64, device=inputs.device)
    for rows in _config_blocks(inputs, output_gradients):
        x, g = inputs[rows].to(dtype), output_gradients[rows].to(dtype)
        squared[rows] = _by_token_grams(x, g) if by_tokens else _by_gradient_rows(x, g)
    return squared.clamp(min=0).sqrt()


def _by_token_grams(x: Tensor, g: Tensor) -> Tensor:
    squared = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    for i in range(0, x.shape[1], TOKEN_BLOCK):
        for j in range(0, i + 1, TOKEN_BLOCK):
            first, second = slice(i, i + TOKEN_BLOCK), slice(j, j + TOKEN_BLOCK)
            gram = (x[:, first] @ x[:, second].mT) * (g[:, first] @ g[:, second].mT)
            squared += gram.sum(dim=(1, 2), dtype=torch.float64) * (1 if i == j else 2)
    return squared


def _by_gradient_rows(x: Tensor, g: Tensor) -> Tensor:
    squared = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    for start in range(0, g.shape[2], ROW_BLOCK):
        rows = g[:, :, start : start + ROW_BLOCK].mT @ x
        squared += rows.square().sum(dim=(1, 2), dtype=torch.float64)
    return squared


def _working_dtype(inputs: Tensor) -> torch.dtype:
    return torch.promote_types(inputs.dtype, torch.float32)


def _config_blocks(inputs: Tensor, output_gradients: Tensor) -> list[slice]:
    """Configurations cut so that copies of their tokens stay below BLOCK_BYTES (one at least)."""
    num_configs, num_tokens = inputs.shape[:2]
    per_config = 8 * num_tokens * (inputs.shape[2] + output_gradients.shape[2])
    count = max(1, BLOCK_BYTES // max(per_config, 1))
    return [slice(start, start + count) for start in range(0, num_configs, count)]


def combine_descents(layers: Sequence[Descent]) -> Descent:
    """All layers as one weight: inner products add, norms add in squares."""
    return Descent(
        inner=torch.stack([layer.inner for layer in layers]).sum(dim=0),
        gradient_norm=torch.stack([layer.gradient_norm for layer in layers]).norm(dim=0),
        step_norm=torch.stack([layer.step_norm for layer in layers]).norm(dim=0),
    )


def purity_metrics(layers: Mapping[str, Descent]) -> dict[str, Tensor]:
    """``purity`` in total and ``purity/<layer>``, each (N,)."""
    metrics = {"purity": combine_descents(list(layers.values())).purity}
    return metrics | {f"purity/{name}": layer.purity for name, layer in layers.items()}
