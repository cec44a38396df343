"""The trace of the Hessian by Hutchinson's estimator, with its standard error."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lora_alpha.curvature.krylov import SymmetricOperator
from lora_alpha.errors import ProbeError


class BlockOperator(SymmetricOperator, Protocol):
    """An operator that can take several vectors in one pass."""

    def matmat(self, vectors_KP: Tensor, /) -> Tensor:
        """H·v of every row, shape (K, P)."""
        ...


@dataclass(frozen=True)
class TraceProgress:
    """The estimate after ``products`` of at most ``max_products`` products."""

    products: int
    max_products: int
    mean: float
    error: float


@dataclass(frozen=True)
class TraceEstimate:
    """tr(H) and ‖H‖_F² with their standard errors.

    ``squared_norm`` comes free: E‖H·v‖² = tr(H²).
    """

    trace: float
    trace_error: float
    squared_norm: float
    squared_norm_error: float
    num_products: int


def hutchinson_trace(
    operator: BlockOperator,
    *,
    max_products: int = 200,
    min_products: int = 10,
    relative_error: float = 0.02,
    block: int = 1,
    seed: int = 0,
) -> Generator[TraceProgress, None, TraceEstimate]:
    """E[vᵀHv] over Rademacher vectors, yielding after every block of products.

    Ends once the standard error is below ``relative_error`` of the estimate, or the products are used up.
    Hutch++ was tried and won nothing on these spectra.

    Args:
        operator: The Hessian.
        max_products: Most products.
        min_products: Fewest, ≥ 2: a standard error from fewer means nothing.
        relative_error: Standard error over |trace| at which to stop; 0 uses every product.
        block: Vectors per pass. On a GPU four at once cost about one where a pass is many small kernels.
        seed: Of the vectors.

    Raises:
        ProbeError: If fewer than two products are allowed.

    Source: Hutchinson 1990; variance 2·(‖H‖_F² - Σ H_ii²) per Rademacher vector.
    """
    if max_products < 2:
        raise ProbeError(f"got {max_products} products: a trace with an error needs at least 2")
    generator = torch.Generator().manual_seed(seed)
    samples: list[float] = []
    squares: list[float] = []
    while len(samples) < max_products:
        size = min(block, max_products - len(samples))
        bits_KP = torch.randint(0, 2, (size, operator.dim), generator=generator, dtype=torch.int8)
        signs_KP = (2 * bits_KP - 1).to(device=operator.device, dtype=operator.dtype)
        images_KP = operator.matmat(signs_KP) if size > 1 else operator.matvec(signs_KP[0])[None]
        images_KP = images_KP.double()
        samples += (signs_KP.double() * images_KP).sum(1).tolist()
        squares += images_KP.square().sum(1).tolist()
        if not np.isfinite(samples).all():
            raise ProbeError("a Hessian product is not finite: probe another step or in float64")
        mean, error = _mean_and_error(samples)
        yield TraceProgress(len(samples), max_products, mean, error)
        if len(samples) >= max(min_products, 2) and error <= relative_error * abs(mean):
            break
    trace, trace_error = _mean_and_error(samples)
    squared_norm, squared_norm_error = _mean_and_error(squares)
    return TraceEstimate(trace, trace_error, squared_norm, squared_norm_error, len(samples))


def _mean_and_error(samples: list[float]) -> tuple[float, float]:
    array = np.asarray(samples)
    if len(array) < 2:
        return float(array.mean()), float("inf")
    return float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))
