"""What one optimiser step did to the weight, split into signal and drift, from r×r Grams.

Shape legend: N configurations, r rank (zero pads allowed), I in, O out, L layers.

With ``W = W0 + s·B·A`` a step (δA, δB) changes the weight by
``δW = s(δB·A + B·δA) [signal] + s·δB·δA [drift]``. Every norm here expands in r×r Grams, as in
``‖δB·δA‖_F² = tr((δBᵀδB)(δA·δAᵀ))``: no out×in matrix is ever formed. Grams are accumulated in float64, which
gives norms to about 1e-13 of their terms' size. Where the sum of terms cancels (a step that only moves
between equivalent factors has almost no signal although both of its terms are large) the configuration is
computed again from QR factors, so that the relative error stays below 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

# ‖·‖² below this fraction of its terms' size has fewer than ten digits left in a Gram sum.
CANCELLATION = 1e-6
PIVOT_SHIFT = 1e-14  # relative, lets a Gram with zero pads be factored; moves a stable rank as little


@dataclass(frozen=True)
class StepStatistics:
    """One layer's step (or several layers' taken together), each of shape (N,), float64.

    Attributes:
        signal_norm: ‖s(δB·A + B·δA)‖_F.
        drift_norm: ‖s·δB·δA‖_F.
        step_norm: ‖δW‖_F of the realised change, signal and drift together.
        change_A: ‖A - A0‖_F after the step.
        norm_A0: ‖A0‖_F.
        update_norm: ‖s(BA - B0A0)‖_F after the step: how far the weight is from where it started.
        stable_rank: ‖·‖_F²/‖·‖_2² of that update, between 1 and the rank (2·rank where B0 is not 0);
            0 while the update is 0. Of several layers: the mean over those that have moved.
    """

    signal_norm: Tensor
    drift_norm: Tensor
    step_norm: Tensor
    change_A: Tensor
    norm_A0: Tensor
    update_norm: Tensor
    stable_rank: Tensor

    def metrics(self) -> dict[str, Tensor]:
        """The recorded metrics by name, each (N,).

        ``drift_ratio`` is drift_norm/signal_norm, 0 where the step did nothing; ``rel_change_A`` is
        ‖A - A0‖/‖A0‖.
        """
        return {
            "drift_ratio": _ratio(self.drift_norm, self.signal_norm),
            "signal_norm": self.signal_norm,
            "drift_norm": self.drift_norm,
            "rel_change_A": _ratio(self.change_A, self.norm_A0),
            "update_norm": self.update_norm,
            "stable_rank": self.stable_rank,
        }


def step_statistics(
    lora_A: Tensor,
    lora_B: Tensor,
    delta_A: Tensor,
    delta_B: Tensor,
    scale: Tensor,
    *,
    A0: Tensor,
    B0: Tensor | None = None,
) -> StepStatistics:
    """Signal, drift and accumulated update of one layer in every configuration of a pack.

    Args:
        lora_A: Factor before the step, (N, r, I).
        lora_B: Factor before the step, (N, O, r).
        delta_A: Change by the step, weight decay included, (N, r, I).
        delta_B: Likewise, (N, O, r).
        scale: Effective scale s, (N,).
        A0: Initial A, (N, r, I).
        B0: Initial B, (N, O, r); None means 0.

    Returns:
        Norms in units of the weight, (N,) float64.
    """
    A, B, dA, dB = (tensor.double() for tensor in (lora_A, lora_B, delta_A, delta_B))
    s = scale.double().abs()
    left, right = _gram_blocks(B.mT, dB.mT), _gram_blocks(A, dA)
    by_B, by_A = _inner(left.dd, right.aa), _inner(left.aa, right.dd)  # ‖δB·A‖², ‖B·δA‖²
    drift = _inner(left.dd, right.dd)
    signal = by_B + by_A + 2 * _inner(left.ad.mT, right.ad)
    step = signal + drift + 2 * (_inner(left.dd, right.ad) + _inner(left.ad, right.dd))
    sizes = _size(left.dd, right.aa) + _size(left.aa, right.dd) + _size(left.dd, right.dd)
    signal_factors = _Product(
        lambda rows: torch.cat([dB[rows], B[rows]], dim=2),
        lambda rows: torch.cat([A[rows], dA[rows]], dim=1),
    )
    step_factors = _Product(
        lambda rows: torch.cat([dB[rows], B[rows]], dim=2),
        lambda rows: torch.cat([A[rows] + dA[rows], dA[rows]], dim=1),
    )
    drift_factors = _Product(lambda rows: dB[rows], lambda rows: dA[rows])
    grown_A = (A - A0).add_(dA)
    if B0 is None:
        update = _Product(lambda rows: B[rows] + dB[rows], lambda rows: A[rows] + dA[rows])
        update_norm, stable_rank = _update_statistics(update, left.after(), right.after())
    else:
        # (B - B0)·A + B0·(A - A0): the difference of the two products themselves would cancel.
        start_B = B0.double()
        tall = torch.cat([B - start_B + dB, start_B], dim=2)
        wide = torch.cat([A + dA, grown_A], dim=1)
        update = _Product(lambda rows: tall[rows], lambda rows: wide[rows])
        update_norm, stable_rank = _update_statistics(update, tall.mT @ tall, wide @ wide.mT)
    return StepStatistics(
        signal_norm=s * _rescued_norm(signal, sizes, signal_factors),
        drift_norm=s * _rescued_norm(drift, _size(left.dd, right.dd), drift_factors),
        step_norm=s * _rescued_norm(step, sizes, step_factors),
        change_A=_norm(grown_A),
        norm_A0=_norm(A0),
        update_norm=s * update_norm,
        stable_rank=stable_rank,
    )


def signal_drift(
    lora_A: Tensor,
    lora_B: Tensor,
    delta_A: Tensor,
    delta_B: Tensor,
    scale: Tensor,
    *,
    A0: Tensor,
    B0: Tensor | None = None,
) -> dict[str, Tensor]:
    """:func:`step_statistics` as metrics by name, each (N,) float64.

    >>> one = torch.ones(1, 1, 1)
    >>> found = signal_drift(one, one, 0.1 * one, 0.2 * one, torch.tensor([2.0]), A0=one)
    >>> round(float(found["signal_norm"]), 6), round(float(found["drift_norm"]), 6)
    (0.6, 0.04)
    """
    return step_statistics(lora_A, lora_B, delta_A, delta_B, scale, A0=A0, B0=B0).metrics()


def combine_layers(layers: Sequence[StepStatistics]) -> StepStatistics:
    """All adapted layers as one block-diagonal weight: norms add in squares.

    The stable rank is the mean over layers that have moved, which stays comparable with the rank; that of
    the block-diagonal matrix would grow with the number of layers.
    """
    stacked = {
        field.name: torch.stack([getattr(layer, field.name) for layer in layers])
        for field in fields(StepStatistics)
    }
    ranks_LN = stacked.pop("stable_rank")
    num_moved = (ranks_LN > 0).sum(dim=0).clamp(min=1)
    norms = {name: values_LN.norm(dim=0) for name, values_LN in stacked.items()}
    return StepStatistics(stable_rank=ranks_LN.sum(dim=0) / num_moved, **norms)


def layered_metrics(layers: Mapping[str, StepStatistics]) -> dict[str, Tensor]:
    """Metrics in total under their name and of each layer as ``<metric>/<layer>``."""
    metrics = combine_layers(list(layers.values())).metrics()
    for name, layer in layers.items():
        metrics |= {f"{metric}/{name}": values for metric, values in layer.metrics().items()}
    return metrics


@dataclass(frozen=True)
class _GramBlocks:
    """Grams of a factor's rows a and of its change d: a·aᵀ, a·dᵀ and d·dᵀ, (N, r, r) each."""

    aa: Tensor
    ad: Tensor
    dd: Tensor

    def after(self) -> Tensor:
        """Gram of a + d."""
        return self.aa + self.ad + self.ad.mT + self.dd


def _gram_blocks(rows: Tensor, change: Tensor) -> _GramBlocks:
    return _GramBlocks(rows @ rows.mT, rows @ change.mT, change @ change.mT)


@dataclass(frozen=True)
class _Product:
    """A product left·right of which only chosen configurations are ever formed: (·, O, k) and (·, k, I)."""

    left: Callable[[Tensor], Tensor]
    right: Callable[[Tensor], Tensor]


def _update_statistics(update: _Product, gram_left: Tensor, gram_right: Tensor) -> tuple[Tensor, Tensor]:
    """Frobenius norm and stable rank of a product, (N,) each."""
    norm = _rescued_norm(_inner(gram_left, gram_right), _size(gram_left, gram_right), update)
    spectral_squared = _largest_eigenvalue(gram_left, gram_right)
    still = spectral_squared == 0
    return norm, torch.where(still, 0.0, norm.square() / torch.where(still, 1.0, spectral_squared))


def _rescued_norm(squared: Tensor, size: Tensor, product: _Product) -> Tensor:
    """√squared, (N,); where it is tiny beside ``size`` instead ‖left·right‖_F from QR factors."""
    norm = squared.clamp(min=0).sqrt()
    lost = squared < CANCELLATION * size
    if bool(lost.any()):
        rows = lost.nonzero()[:, 0]
        triangle_left = torch.linalg.qr(product.left(rows), mode="r").R
        triangle_right = torch.linalg.qr(product.right(rows).mT, mode="r").R
        norm[rows] = (triangle_left @ triangle_right.mT).flatten(1).norm(dim=1)
    return norm


def _norm(matrices: Tensor) -> Tensor:
    """‖·‖_F of each configuration, (N,) float64."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), dtype=torch.float64)
    return norms


def _inner(first: Tensor, second: Tensor) -> Tensor:
    """Σ_ij first_ij·second_ij, (N,)."""
    return (first * second).sum(dim=(1, 2))


def _size(first: Tensor, second: Tensor) -> Tensor:
    """‖first‖·‖second‖, (N,): how large the terms of their inner product can be."""
    return _norm(first) * _norm(second)


def _largest_eigenvalue(gram_left: Tensor, gram_right: Tensor) -> Tensor:
    """‖left·right‖_2², (N,): the largest eigenvalue of ``Kᵀ·gram_left·K`` with ``K·Kᵀ = gram_right``."""
    finite = torch.isfinite(gram_left).all(dim=2).all(dim=1) & torch.isfinite(gram_right).all(dim=2).all(
        dim=1
    )
    # LAPACK refuses NaN: a configuration that has diverged gets the identity and is blanked below.
    identity = torch.eye(gram_right.shape[1], dtype=gram_right.dtype, device=gram_right.device)
    safe_left = torch.where(finite[:, None, None], gram_left, identity)
    safe_right = torch.where(finite[:, None, None], gram_right, identity)
    # Relative to each row's own size, so that a small δ beside a large factor is not drowned.
    diagonal = safe_right.diagonal(dim1=1, dim2=2)
    largest = diagonal.amax(dim=1, keepdim=True)
    shift = PIVOT_SHIFT * torch.where(diagonal > 0, diagonal, torch.where(largest > 0, largest, 1.0))
    factor, _ = torch.linalg.cholesky_ex(safe_right + torch.diag_embed(shift))
    spectral = torch.linalg.eigvalsh(factor.mT @ safe_left @ factor)[:, -1].clamp(min=0)
    return torch.where(finite, spectral, torch.nan)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    still = (numerator == 0) & (denominator == 0)
    return numerator / torch.where(still, 1.0, denominator)
