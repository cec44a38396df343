"""At which α the sharpest LoRA direction is as sharp as the sharpest full-weight direction, at B = 0.

At B = 0 the loss depends on the scale s only through s·B, so one gradient graph serves every s:
``H(s) = D(s)·H(1)·D(s)`` with D = 1 on A's coordinates and s on B's. Hence H_AA = 0, H_AB ∝ s and
``H_BB = s²·(I⊗A)·H_W·(I⊗Aᵀ)``; λ_max grows with a power of s between 1 and 2, and meets the full-weight
λ_max near α = √(3·in·r) where the sharpest direction is generic.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_alpha.curvature.krylov import SymmetricOperator
from lora_alpha.curvature.lanczos import LanczosProgress, lanczos
from lora_alpha.errors import ProbeError

MAX_EVALUATIONS = 40


@dataclass(frozen=True)
class Crossing:
    """Where the two sharpest curvatures are equal.

    Attributes:
        scale: s at the crossing.
        lambda_lora: λ_max in LoRA coordinates there.
        lambda_full: λ_max in full-weight coordinates.
        exponent: Local slope of log λ_max(LoRA) against log s, between 1 and 2.
    """

    scale: float
    lambda_lora: float
    lambda_full: float
    exponent: float


class RescaledOperator:
    """``D(s)·H·D(s)`` for a Hessian in LoRA coordinates taken at B = 0 and scale 1.

    Args:
        operator: The Hessian at scale 1.
        is_B_P: True on the coordinates that belong to B, shape (P,).
        scale: s, > 0.
    """

    def __init__(self, operator: SymmetricOperator, is_B_P: Tensor, *, scale: float) -> None:
        self._operator = operator
        self.dim, self.dtype, self.device = operator.dim, operator.dtype, operator.device
        diagonal_P = torch.ones(operator.dim, dtype=operator.dtype, device=operator.device)
        diagonal_P[is_B_P] = scale
        self._diagonal_P = diagonal_P

    def matvec(self, vector_P: Tensor, /) -> Tensor:
        """H(s)·v, shape (P,)."""
        return self._diagonal_P * self._operator.matvec(self._diagonal_P * vector_P)


def find_crossing(
    operator: SymmetricOperator,
    is_B_P: Tensor,
    *,
    lambda_full: float,
    start: float = 1.0,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Generator[LanczosProgress, None, Crossing]:
    """The scale at which λ_max of ``H(s)`` equals ``lambda_full``.

    By the secant rule on log λ against log s, which is nearly a straight line.

    Args:
        operator: The Hessian in LoRA coordinates at B = 0 and scale 1.
        is_B_P: True on B's coordinates, (P,).
        lambda_full: λ_max in full-weight coordinates, > 0.
        start: First guess of s.
        tolerance: Relative, on λ.
        seed: Of the Lanczos start vectors.

    Raises:
        ProbeError: If a λ_max is not positive, or no crossing is found in 40 evaluations.
    """
    if lambda_full <= 0:
        raise ProbeError(
            f"got λ_max {lambda_full:g} in full-weight coordinates: a crossing needs it positive"
        )
    scale, exponent = start, 1.5
    previous: tuple[float, float] | None = None
    for _ in range(MAX_EVALUATIONS):
        rescaled = RescaledOperator(operator, is_B_P, scale=scale)
        pairs = yield from lanczos(rescaled, num_top=1, tolerance=tolerance, seed=seed)
        sharpest = float(pairs.top[0])
        if sharpest <= 0:
            raise ProbeError(f"λ_max in LoRA coordinates is {sharpest:g} at s = {scale:g}: no crossing")
        if previous is not None and previous[0] != scale:
            slope = (math.log(sharpest) - math.log(previous[1])) / (math.log(scale) - math.log(previous[0]))
            exponent = min(max(slope, 0.5), 3.0)
        if abs(sharpest / lambda_full - 1) <= tolerance:
            return Crossing(scale, sharpest, lambda_full, exponent)
        previous = (scale, sharpest)
        scale *= (lambda_full / sharpest) ** (1 / exponent)
    raise ProbeError(f"no crossing found: λ_max is {sharpest:g} at s = {scale:g}, wanted {lambda_full:g}")
