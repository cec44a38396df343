"""One Hessian probe of a workload at given adapter weights, as a stream of events.

Order of events: one :class:`ProbeEstimate`, many :class:`ProbeProgress` (one per product: stop iterating
and the probe is cancelled), one :class:`ProbeResult`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_alpha.curvature.coordinates import Coordinates, probed_model
from lora_alpha.curvature.density import DensityProgress, SpectralDensity, spectral_density
from lora_alpha.curvature.hvp import HessianOperator, LossFunction, Strategy, graph_bytes
from lora_alpha.curvature.lanczos import Eigenpairs, LanczosProgress, basis_bytes, lanczos
from lora_alpha.curvature.memory import available_bytes
from lora_alpha.curvature.precision import check_precision, check_products, random_signs
from lora_alpha.curvature.records import ProbeEstimate, ProbeEvent, ProbeProgress, ProbeResult, ProbeRow
from lora_alpha.curvature.trace import TraceEstimate, TraceProgress, hutchinson_trace
from lora_alpha.errors import ProbeError
from lora_alpha.models.group_layer import LayerFactors
from lora_alpha.spec import ProbeSettings
from lora_alpha.workloads.base import Workload

MEMORY_SHARE = 0.5  # of what is free, so that the products themselves have room
TRACE_BLOCK = 4  # vectors per pass on a GPU (benchmarks/hessian.py)
RESTART_ROOM = 20  # basis vectors beside the wanted ones below which restarts crawl

Solver = Generator[LanczosProgress | DensityProgress | TraceProgress, None, tuple[list[ProbeRow], bool]]


@dataclass(frozen=True)
class _Plan:
    strategy: Strategy
    basis_size: int
    expected_products: int
    max_products: int
    graph_bytes: int


def run_probe(
    workload: Workload,
    model: nn.Module,
    factors: Mapping[str, LayerFactors],
    settings: ProbeSettings,
    *,
    batch_size: int,
    seed: int = 0,
    step: int = 0,
) -> Iterator[ProbeEvent]:
    """Probe the Hessian of the mean training loss at ``factors``.

    The probed loss is the mean over ``settings.num_batches`` training batches, those that the run with
    ``seed`` would see at ``step``, ``step`` + 1, …: fixed and repeatable.

    Args:
        workload: Gives batches and losses.
        model: The base from ``workload.build_model`` in the precision to probe in, without adapters.
        factors: Adapter of every adapted layer by qualified name.
        settings: What to measure.
        batch_size: Examples per batch where the settings leave it open.
        seed: Of the data order.
        step: First step whose batch is used.

    Raises:
        ProbeError: Where no truthful number can be given: precision, memory, a diverged point, layers
            that cannot be probed. The message says what to do.
    """
    started = time.monotonic()
    with probed_model(model, factors, space=settings.space) as coordinates:
        tensors = coordinates.tensors()
        dtype, device = tensors[0].dtype, tensors[0].device
        check_precision(dtype, tolerance=settings.tolerance, device=device)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise ProbeError("the adapter weights at this point are not finite: the run has diverged there")
        size = settings.batch_size or batch_size
        batches = [
            workload.batch(model, step=step + index, seeds=[seed], batch_size=size)
            for index in range(settings.num_batches)
        ]

        def losses(only: Sequence[str] | None) -> list[LossFunction]:
            def loss_of(index: int) -> LossFunction:
                def loss(leaves: Sequence[Tensor]) -> Tensor:
                    coordinates.assign(leaves, only)
                    return workload.losses(model, batches[index], num_configs=1).sum()

                return loss

            return [loss_of(index) for index in range(len(batches))]

        plan = _make_plan(settings, losses(None)[0], tensors)
        operator = HessianOperator(losses(None), tensors, strategy=plan.strategy)
        error = check_products(operator, tolerance=settings.tolerance, seed=settings.probe_seed)
        product_seconds = _time_product(operator)
        parts: list[str | None] = [None, *(coordinates.layers if settings.per_layer else ())]
        total = plan.max_products * len(parts)
        expected = plan.expected_products * len(parts)
        yield ProbeEstimate(
            num_parameters=operator.dim,
            strategy=plan.strategy,
            product_seconds=product_seconds,
            expected_products=expected,
            max_products=total,
            expected_seconds=expected * product_seconds,
            max_seconds=total * product_seconds,
            basis_bytes=basis_bytes(operator.dim, num_vectors=plan.basis_size, dtype=dtype),
            graph_bytes=plan.graph_bytes,
        )
        context = {
            "num_parameters": operator.dim,
            "loss": operator.loss(),
            "gradient_norm": float(operator.gradient().norm()),
            "product_error": error,
            "dtype": str(dtype).removeprefix("torch."),
            "batch_size": size,
            "num_batches": settings.num_batches,
            "strategy": plan.strategy,
            "layers": _describe_layers(coordinates, factors),
        }
        rows: list[ProbeRow] = []
        converged, done, num_products = True, 0, 0
        for index, part in enumerate(parts):
            if part is not None:
                only = [part]
                del operator  # its graphs, before those of the next
                operator = HessianOperator(losses(only), coordinates.tensors(only), strategy=plan.strategy)
            before = operator.num_products
            solver = _solve(operator, settings, plan, suffix="" if part is None else f"/{part}")
            part_rows, part_converged = yield from _narrate(solver, done, total, part, started)
            num_products += operator.num_products - before
            done = (index + 1) * plan.max_products
            rows += part_rows
            converged = converged and part_converged
            coordinates.assign(tensors)
        yield ProbeResult(
            kind=settings.kind,
            space=settings.space,
            rows=tuple(rows),
            converged=converged,
            num_products=num_products,
            context={**context, "seconds": time.monotonic() - started},
        )


def _make_plan(settings: ProbeSettings, loss: LossFunction, tensors: Sequence[Tensor]) -> _Plan:
    """Products, strategy and basis that fit the memory that is free now."""
    dtype, device = tensors[0].dtype, tensors[0].device
    dim = sum(tensor.numel() for tensor in tensors)
    wanted = {"extremes": 2, "top": settings.top_k}.get(settings.kind, 0)
    if settings.kind == "density":
        expected = max_products = settings.num_vectors * min(settings.iterations, dim)
        wanted_basis = smallest = min(settings.iterations, dim)
    elif settings.kind == "trace":
        expected, max_products = min(50, settings.max_products), settings.max_products
        wanted_basis = smallest = 0
    else:
        expected, max_products = min(30 + 3 * wanted, settings.max_products), settings.max_products
        wanted_basis, smallest = min(max_products, dim), min(wanted + RESTART_ROOM, dim)
    free = available_bytes(device)
    budget = None if free is None else int(MEMORY_SHARE * free)
    basis_size = wanted_basis
    if budget is not None and basis_bytes(dim, num_vectors=basis_size, dtype=dtype) > budget:
        basis_size = budget // (dim * dtype.itemsize) - 4
        if basis_size < smallest:
            needed = basis_bytes(dim, num_vectors=smallest, dtype=dtype)
            raise ProbeError(
                f"{dim:,} coordinates need a basis of {needed / 2**30:.1f} GiB, {budget / 2**30:.1f} GiB can "
                "be had: probe single layers, LoRA coordinates, fewer values or float32, or the trace, "
                "which needs no basis"
            )
    if settings.strategy != "auto":
        retained = settings.strategy == "retained"
        graph = 0
    else:
        graph = graph_bytes(loss, tensors) * settings.num_batches
        used = basis_bytes(dim, num_vectors=min(basis_size, expected), dtype=dtype)
        retained = budget is None or graph + used <= budget
    return _Plan("retained" if retained else "fresh", basis_size, expected, max_products, graph * retained)


def _solve(operator: HessianOperator, settings: ProbeSettings, plan: _Plan, *, suffix: str) -> Solver:
    """The rows of one Hessian; yields the solver's own progress."""
    if settings.kind == "density":
        density = yield from spectral_density(
            operator,
            num_vectors=settings.num_vectors,
            iterations=settings.iterations,
            seed=settings.probe_seed,
        )
        return _density_rows(density, suffix), True
    if settings.kind == "trace":
        trace = yield from hutchinson_trace(
            operator,
            max_products=settings.max_products,
            relative_error=settings.trace_error,
            block=TRACE_BLOCK if operator.device.type == "cuda" else 1,
            seed=settings.probe_seed,
        )
        return _trace_rows(trace, suffix), trace.trace_error <= settings.trace_error * abs(trace.trace)
    extremes = settings.kind == "extremes"
    pairs = yield from lanczos(
        operator,
        num_top=1 if extremes else min(settings.top_k, operator.dim),
        num_bottom=1 if extremes and operator.dim > 1 else 0,
        tolerance=settings.tolerance,
        max_products=settings.max_products,
        basis_size=plan.basis_size,
        seed=settings.probe_seed,
    )
    return _eigenvalue_rows(pairs, extremes, suffix), pairs.converged


def _narrate(
    solver: Solver, done: int, total: int, part: str | None, started: float
) -> Generator[ProbeProgress, None, tuple[list[ProbeRow], bool]]:
    where = "" if part is None else f"{part}: "
    while True:
        try:
            progress = next(solver)
        except StopIteration as stop:
            outcome: tuple[list[ProbeRow], bool] = stop.value
            return outcome
        message = f"{where}{progress.products} products{_standing(progress)}"
        yield ProbeProgress(done + progress.products, total, message, time.monotonic() - started)


def _standing(progress: LanczosProgress | DensityProgress | TraceProgress) -> str:
    if isinstance(progress, LanczosProgress):
        bottom = f", λ_min {progress.bottom[0]:.4g}" if len(progress.bottom) else ""
        return f", λ_max {progress.top[0]:.4g}{bottom}, residual {progress.residual:.1e}"
    if isinstance(progress, TraceProgress):
        return f", trace {progress.mean:.4g} ± {progress.error:.2g}"
    return ""


def _eigenvalue_rows(pairs: Eigenpairs, extremes: bool, suffix: str) -> list[ProbeRow]:
    rows = [
        ProbeRow(f"lambda_max{suffix}", 0, float(pairs.top[0]), float(pairs.top_residuals[0])),
    ]
    if len(pairs.bottom):
        rows.append(
            ProbeRow(f"lambda_min{suffix}", 0, float(pairs.bottom[0]), float(pairs.bottom_residuals[0]))
        )
    if not extremes:
        rows += [
            ProbeRow(f"top{suffix}", index, float(value), float(error))
            for index, (value, error) in enumerate(zip(pairs.top, pairs.top_residuals, strict=True))
        ]
    return rows


def _density_rows(density: SpectralDensity, suffix: str) -> list[ProbeRow]:
    rows = [
        ProbeRow(f"density_grid{suffix}", index, float(value), None)
        for index, value in enumerate(density.grid)
    ]
    rows += [
        ProbeRow(f"density{suffix}", index, float(value), float(error))
        for index, (value, error) in enumerate(zip(density.density, density.density_error, strict=True))
    ]
    rows += [
        ProbeRow(f"moment{suffix}", power, float(value), float(error))
        for power, (value, error) in enumerate(
            zip(density.moments, density.moment_errors, strict=True), start=1
        )
    ]
    rows.append(ProbeRow(f"density_width{suffix}", 0, density.width, None))
    return rows


def _trace_rows(trace: TraceEstimate, suffix: str) -> list[ProbeRow]:
    return [
        ProbeRow(f"trace{suffix}", 0, trace.trace, trace.trace_error),
        ProbeRow(f"squared_norm{suffix}", 0, trace.squared_norm, trace.squared_norm_error),
    ]


def _describe_layers(
    coordinates: Coordinates, factors: Mapping[str, LayerFactors]
) -> list[dict[str, object]]:
    described = []
    for name, layer in coordinates.layers.items():
        lora_A = factors[name].A
        described.append(
            {
                "name": name,
                "in_features": layer.in_features,
                "out_features": layer.out_features,
                "rank": None if lora_A is None else lora_A.shape[0],
                "scale": None if lora_A is None else factors[name].scale,
            }
        )
    return described


def _time_product(operator: HessianOperator) -> float:
    """Seconds of one product; the symmetry check has warmed everything up."""
    vector_P = random_signs(operator, seed=0)
    _synchronise(operator.device)
    started = time.monotonic()
    operator.matvec(vector_P)
    _synchronise(operator.device)
    return time.monotonic() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
