"""The only place where a LoRA scale is computed.

The adapted weight is ``W = W0 + s·B·A``. Trainers spell the effective scale ``s`` differently;
everything here converts between those spellings, and everything else stores ``s`` beside α.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

ScaleRule = Literal["alpha/r", "alpha/sqrt(r)"]


def effective_scale(alpha: float, rank: int, *, rule: ScaleRule = "alpha/r") -> float:
    """The multiplier ``s`` in ``W0 + s·B·A``.

    ``alpha/r`` is LoRA (s = α/r); ``alpha/sqrt(r)`` is rsLoRA (s = α/√r).

    Args:
        alpha: Scaling factor α, > 0.
        rank: Rank r, ≥ 1.
        rule: Which convention α is given in.

    Returns:
        The dimensionless scale s.

    Raises:
        ValueError: If α is not positive and finite, or rank < 1.

    Source: Hu et al. 2021 (2106.09685) for α/r; Kalajdzievski 2023 (2312.03732) for α/√r.

    >>> effective_scale(1024, 16)
    64.0
    >>> effective_scale(256, 16, rule="alpha/sqrt(r)")
    64.0
    """
    _check(alpha, rank)
    return alpha / _denominator(rank, rule)


def alpha_for_scale(scale: float, rank: int, *, rule: ScaleRule = "alpha/r") -> float:
    """The α that gives effective scale ``scale`` at ``rank`` under ``rule``.

    >>> alpha_for_scale(64.0, 16)
    1024.0
    """
    _check(scale, rank)
    return scale * _denominator(rank, rule)


def shortest_alpha(
    scale: float, rank: int, *, rule: ScaleRule = "alpha/r", stored: Callable[[float], float] = float
) -> float:
    """The α with the fewest digits that gives this very ``scale``, which s·r in floating point may miss.

    Args:
        scale: As stored.
        rank: Rank r, ≥ 1.
        rule: Which convention α is given in.
        stored: A scale in the precision that ``scale`` was stored in.

    >>> 1.3 * 3, shortest_alpha(3.9 / 3, 3)
    (3.9000000000000004, 3.9)
    """
    exact = alpha_for_scale(float(scale), rank, rule=rule)
    rounded = (float(f"{exact:.{digits}g}") for digits in range(1, 17))
    return next((a for a in rounded if stored(effective_scale(a, rank, rule=rule)) == scale), exact)


def convert_alpha(alpha: float, rank: int, *, given: ScaleRule, wanted: ScaleRule) -> float:
    """The same training expressed in another convention.

    >>> convert_alpha(32, 16, given="alpha/r", wanted="alpha/sqrt(r)")
    8.0
    """
    return alpha_for_scale(effective_scale(alpha, rank, rule=given), rank, rule=wanted)


def law_alpha(rank: int, *, coefficient: float = 256.0, exponent: float = 0.5) -> float:
    """α = C·r^p, the rule that LoRA-α proposes with C = 256 and p = 1/2.

    Used with s = α/r. Combined with rsLoRA's s = α/√r it would give s = C at every rank,
    which is rarely what was meant.

    Args:
        rank: Rank r, ≥ 1.
        coefficient: C, > 0.
        exponent: p, dimensionless.

    Returns:
        α in the ``alpha/r`` convention.

    Source: arXiv 2606.12883 (claimed for AdamW at η = 2e-5, fresh adapters).

    >>> law_alpha(16)
    1024.0
    """
    _check(coefficient, rank)
    return float(coefficient * rank**exponent)


def spectral_match_alpha(in_features: int, rank: int) -> float:
    """The α near which the top Hessian eigenvalues in LoRA and full coordinates are equal.

    At B = 0, λ(H_BB)/λ(H_W) ≈ s²·r/(3·in) for a generic top direction, hence α ≈ √(3·in·r).

    >>> spectral_match_alpha(256, 12)
    96.0
    """
    _check(in_features, rank)
    return math.sqrt(3.0 * in_features * rank)


def _denominator(rank: int, rule: ScaleRule) -> float:
    return float(rank) if rule == "alpha/r" else math.sqrt(rank)


def _check(value: float, rank: int) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"got {value!r}: α, scale and coefficient must be finite and above 0")
    if rank < 1:
        raise ValueError(f"got rank {rank!r}: the rank must be a whole number of at least 1")
