"""The trace of the Hessian by Hutchinson's estimator, with its standard error."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch

from lora_alpha.curvature.krylov import SymmetricOperator
from lora_alpha.errors import ProbeError


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
    operator: SymmetricOperator,
    *,
    max_products: int = 200,
    min_products: int = 10,
    relative_error: float = 0.02,
    seed: int = 0,
) -> Generator[TraceProgress, None, TraceEstimate]:
    """E[vᵀHv] over Rademacher vectors, yielding after every product.

    Ends once the standard error is below ``relative_error`` of the estimate, or the products are used up.
    Hutch++ was tried and won nothing on these spectra.

    Args:
        operator: The Hessian.
        max_products: Most products.
        min_products: Fewest, ≥ 2: a standard error from fewer means nothing.
        relative_error: Standard error over |trace| at which to stop; 0 uses every product.
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
        bits_P = torch.randint(0, 2, (operator.dim,), generator=generator, dtype=torch.int8)
        signs_P = (2 * bits_P - 1).to(device=operator.device, dtype=operator.dtype)
        image_P = operator.matvec(signs_P).double()
        samples.append(float(signs_P.double() @ image_P))
        squares.append(float(image_P @ image_P))
        if not np.isfinite(samples[-1]):
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
