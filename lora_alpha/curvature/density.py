"""The whole spectrum at once: stochastic Lanczos quadrature.

For a random unit vector v, Lanczos with M products gives M nodes θ and weights w with
``Σ w·θ^j = vᵀH^j v`` for every j < 2M. Averaged over vectors this is the spectral density
``φ(t) = (1/P) Σ_i δ(t - λ_i)``, drawn with a Gaussian of stated width in place of each δ.

Source: Lin, Saad & Yang 2016; Ghorbani, Krishnan & Xiao 2019 for networks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lora_alpha.curvature.krylov import FloatArray, KrylovSpace, SymmetricOperator
from lora_alpha.errors import ProbeError

NUM_MOMENTS = 4


@dataclass(frozen=True)
class DensityProgress:
    """``products`` of at most ``max_products`` are done."""

    products: int
    max_products: int


@dataclass(frozen=True)
class SpectralDensity:
    """An estimated spectral density.

    Attributes:
        nodes: Per start vector, where its quadrature puts mass.
        weights: Per start vector, how much; each sums to 1.
        grid: Curvature values t.
        density: φ(t), in 1/curvature, integrating to 1.
        density_error: Standard error of ``density`` over the start vectors.
        width: Standard deviation of the Gaussian that stands for an eigenvalue, in curvature.
        moments: (1/P)·tr(H^j) for j = 1 … 4.
        moment_errors: Their standard errors over the start vectors.
        num_products: Hessian products used.
    """

    nodes: tuple[FloatArray, ...]
    weights: tuple[FloatArray, ...]
    grid: FloatArray
    density: FloatArray
    density_error: FloatArray
    width: float
    moments: FloatArray
    moment_errors: FloatArray
    num_products: int


def spectral_density(
    operator: SymmetricOperator,
    *,
    num_vectors: int = 8,
    iterations: int = 60,
    num_points: int = 401,
    relative_width: float = 0.01,
    seed: int = 0,
) -> Generator[DensityProgress, None, SpectralDensity]:
    """Estimate the spectral density, yielding after every product.

    Start vectors are Rademacher (±1/√P), for which each moment is unbiased.

    Args:
        operator: The Hessian.
        num_vectors: Start vectors, ≥ 2 so that an error can be stated; it falls as 1/√num_vectors.
        iterations: Products per vector; they sharpen the edges.
        num_points: Of the grid.
        relative_width: Gaussian width as a fraction of the spectrum's extent.
        seed: Of the start vectors.

    Raises:
        ProbeError: If fewer than two vectors or one iteration are asked for.
    """
    if num_vectors < 2 or iterations < 1:
        raise ProbeError(
            f"got {num_vectors} vectors and {iterations} iterations: a density with an error needs at least "
            "2 vectors and 1 iteration"
        )
    generator = torch.Generator().manual_seed(seed)
    iterations = min(iterations, operator.dim)
    nodes, weights, products = [], [], 0
    for _ in range(num_vectors):
        bits_P = torch.randint(0, 2, (operator.dim,), generator=generator, dtype=torch.int8)
        space = KrylovSpace(operator, capacity=iterations)
        space.push((2 * bits_P - 1).to(device=operator.device, dtype=operator.dtype))
        while space.expand():
            products += 1
            yield DensityProgress(products, num_vectors * iterations)
        pairs = space.ritz()
        nodes.append(pairs.values_M)
        weights.append(pairs.coefficients_MM[0] ** 2)
    return _summarise(nodes, weights, num_points, relative_width, products)


def _summarise(
    nodes: Sequence[FloatArray],
    weights: Sequence[FloatArray],
    num_points: int,
    relative_width: float,
    products: int,
) -> SpectralDensity:
    low = min(float(values.min()) for values in nodes)
    high = max(float(values.max()) for values in nodes)
    extent = high - low if high > low else max(abs(high), 1.0)
    width = relative_width * extent
    grid = np.linspace(low - 4 * width, high + 4 * width, num_points)
    curves = np.stack([_broaden(grid, n, w, width) for n, w in zip(nodes, weights, strict=True)])
    moments = np.stack(
        [
            [float(w @ n**power) for power in range(1, NUM_MOMENTS + 1)]
            for n, w in zip(nodes, weights, strict=True)
        ]
    )
    return SpectralDensity(
        nodes=tuple(nodes),
        weights=tuple(weights),
        grid=grid,
        density=curves.mean(axis=0),
        density_error=_standard_error(curves),
        width=width,
        moments=moments.mean(axis=0),
        moment_errors=_standard_error(moments),
        num_products=products,
    )


def _broaden(grid: FloatArray, nodes: FloatArray, weights: FloatArray, width: float) -> FloatArray:
    distance = (grid[:, None] - nodes[None, :]) / width
    bumps = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
    return np.asarray(bumps @ weights)


def _standard_error(samples: FloatArray) -> FloatArray:
    return np.asarray(samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))
