"""The best α (or lr) of one curve of cells, how sure it is, and how wide its basin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.intervals import t_quantile
from lora_alpha.methods import method_scale

Target = Literal["alpha", "lr"]
Censored = Literal["", "low_edge", "high_edge", "cliff"]
BASIN = 0.02  # "as good as the best": within this share of its loss
WITHIN_BASIN = f"within {100 * BASIN:g} %"


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Where a curve of loss against α (or lr) is lowest.

    Attributes:
        method: Fine-tuning method.
        rank: Rank.
        lr: The learning rate of the curve, None for target ``lr``.
        alpha: The α of the curve, None for target ``alpha``.
        lr_ratio: lr_B / lr_A of the curve.
        target: What was searched over.
        value: The optimum by a parabola in log₂ through the best cell and its neighbours; the best cell
            itself where it is censored.
        low: Lower end of the 95 % interval over seeds; None where unknown or unbounded.
        high: Upper end, likewise.
        scale: Effective scale s at the optimum.
        basin_low: Lowest value whose interpolated loss is within ``BASIN`` of the best measured one.
            ``value`` is always inside the basin.
        basin_high: Highest such value.
        basin_open_low: The basin runs off the grid's low end.
        basin_open_high: The basin runs off the grid's high end, or into diverged cells.
        basin_octaves: Width of the basin in factors of two.
        loss: Mean loss of the best cell.
        censored: ``""`` for an optimum inside the grid; ``low_edge``, ``high_edge``: the best cell is the
            last one measured on that side; ``cliff``: the next cell diverged.
        bound_low: For censored optima the range that it must lie in, low end or None.
        bound_high: High end or None.
        num_seeds: Seeds in the best cell.
        num_diverged: Diverged runs on the curve.
        per_seed_removed: Optimum with each seed left out in turn: seed → value, for jackknife statistics.
    """

    method: str
    rank: int
    lr: float | None
    alpha: float | None
    lr_ratio: float
    target: Target
    value: float
    low: float | None
    high: float | None
    scale: float | None
    basin_low: float
    basin_high: float
    basin_open_low: bool
    basin_open_high: bool
    basin_octaves: float
    loss: float
    censored: Censored
    bound_low: float | None
    bound_high: float | None
    num_seeds: int
    num_diverged: int
    per_seed_removed: dict[int, float] = field(default_factory=dict)

    @property
    def fixed(self) -> float:
        """The lr of the curve, or its α for target ``lr``."""
        fixed = self.lr if self.target == "alpha" else self.alpha
        assert fixed is not None
        return fixed


def find_optimum(cells: Sequence[Cell], *, target: Target = "alpha") -> Optimum | None:
    """The optimum of one curve: cells equal in all but α (or lr). None if no cell is measured.

    The interval is a delete-one-seed jackknife of log₂(value) with t quantiles of n-1 degrees of freedom:
    it sees whatever seeds do to the whole curve, which resampling 3 seeds understates.

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> runs = [RunOutcome("lora", 4, 2.0**k, 2.0**k / 4, 1e-3, 0, "finished", 1 + (k - 6.25) ** 2 / 9)
    ...         for k in range(3, 10)]
    >>> round(float(np.log2(find_optimum(make_cells(runs)).value)), 6)
    6.25
    """
    curve = sorted(cells, key=lambda cell: _position(cell, target))
    tried = [cell for cell in curve if cell.tried]
    usable = [index for index, cell in enumerate(tried) if cell.measured]
    if not usable:
        return None
    x = np.log2([_position(cell, target) for cell in tried])
    y = np.array([cell.cost if cell.measured and cell.cost is not None else np.nan for cell in tried])
    best = min(usable, key=lambda index: float(y[index]))
    censored = _censored(y, best)
    value = _vertex(x, y, best) if not censored else float(x[best])
    without = _leave_one_out(tried, x) if not censored else {}
    half = jackknife_half_width(list(without.values()))
    basin_low, basin_high, open_low, open_high = _basin(x, y, best)
    basin_low, basin_high = 2.0**basin_low, 2.0**basin_high
    bound_low, bound_high = _bounds(x, best, censored)
    cell = tried[best]
    assert cell.rank is not None
    alpha = 2.0**value if target == "alpha" else cell.alpha
    return Optimum(
        method=cell.method,
        rank=cell.rank,
        lr=cell.lr if target == "alpha" else None,
        alpha=None if target == "alpha" else cell.alpha,
        lr_ratio=cell.lr_ratio,
        target=target,
        value=2.0**value,
        low=None if half is None else 2.0 ** (value - half),
        high=None if half is None else 2.0 ** (value + half),
        scale=method_scale(cell.method, rank=cell.rank, alpha=alpha),
        basin_low=basin_low,
        basin_high=basin_high,
        basin_open_low=open_low,
        basin_open_high=open_high,
        basin_octaves=math.log2(basin_high / basin_low),
        loss=cell.sign * float(y[best]),
        censored=censored,
        bound_low=bound_low,
        bound_high=bound_high,
        num_seeds=cell.n,
        num_diverged=sum(cell.num_diverged for cell in curve),
        per_seed_removed={seed: 2.0**value for seed, value in without.items()},
    )


def find_optima(cells: Sequence[Cell], *, target: Target = "alpha") -> list[Optimum]:
    """The optimum of every curve: one per method, rank, lr_ratio and lr (or α, for target ``lr``).

    A curve needs three tried cells, otherwise there is no question of where on it the best lies.
    """
    curves: dict[tuple[str, float, float, int], list[Cell]] = {}
    for cell in cells:
        if cell.rank is None or cell.alpha is None:
            continue
        fixed = cell.lr if target == "alpha" else cell.alpha
        curves.setdefault((cell.method, cell.lr_ratio, fixed, cell.rank), []).append(cell)
    found = [find_optimum(curve, target=target) for _, curve in sorted(curves.items()) if len(curve) >= 3]
    return [optimum for optimum in found if optimum is not None]


def jackknife_half_width(without: Sequence[float], *, confidence: float = 0.95) -> float | None:
    """Half the interval of an estimate from its n delete-one values: t_{n-1}·√((n-1)/n·Σ(θ_i - θ̄)²).

    None with fewer than two values.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, eq. 11.5.
    """
    n = len(without)
    if n < 2:
        return None
    values = np.asarray(without, dtype=np.float64)
    error = math.sqrt((n - 1) / n * float(((values - values.mean()) ** 2).sum()))
    return t_quantile(0.5 + confidence / 2, n - 1) * error


def _position(cell: Cell, target: Target) -> float:
    value = cell.alpha if target == "alpha" else cell.lr
    assert value is not None
    return value


def _censored(y: NDArray[np.float64], best: int) -> Censored:
    last = len(y) - 1
    if (best < last and math.isnan(y[best + 1])) or (best > 0 and math.isnan(y[best - 1])):
        return "cliff"
    if best == 0:
        return "low_edge"
    return "high_edge" if best == last else ""


def _bounds(x: NDArray[np.float64], best: int, censored: Censored) -> tuple[float | None, float | None]:
    """The range that a censored optimum lies in: up to the neighbours, without end beyond an edge."""
    if not censored:
        return None, None
    low = float(2.0 ** x[best - 1]) if best > 0 else None
    high = float(2.0 ** x[best + 1]) if best < len(x) - 1 else None
    return low, high


def _vertex(x: NDArray[np.float64], y: NDArray[np.float64], best: int) -> float:
    """The lowest point of the parabola through the best cell and its two neighbours, kept between them."""
    curvature, vertex = _parabola(x, y, best)
    return float(np.clip(vertex, x[best - 1], x[best + 1])) if curvature > 0 else float(x[best])


def _parabola(x: NDArray[np.float64], y: NDArray[np.float64], best: int) -> tuple[float, float]:
    """Curvature c and vertex v of y = c·(x - v)² + const through the best cell and its neighbours.

    v is NaN where c is 0.
    """
    left, middle, right = (slice_ for slice_ in range(best - 1, best + 2))
    h0, h1 = x[middle] - x[left], x[right] - x[middle]
    d0, d1 = (y[middle] - y[left]) / h0, (y[right] - y[middle]) / h1
    curvature = float((d1 - d0) / (h0 + h1))
    if curvature == 0:
        return 0.0, math.nan
    slope = float((d0 * h1 + d1 * h0) / (h0 + h1))
    return curvature, float(x[middle]) - slope / (2 * curvature)


def _leave_one_out(tried: Sequence[Cell], x: NDArray[np.float64]) -> dict[int, float]:
    """log₂ of the optimum with each seed removed; empty unless every cell has the same two or more seeds."""
    seeds = set.intersection(*(set(cell.losses) for cell in tried if cell.measured))
    if len(seeds) < 2:
        return {}
    without = {}
    for removed in sorted(seeds):
        kept = seeds - {removed}
        y = np.array(
            [np.mean([cell.costs[seed] for seed in kept]) if cell.measured else np.nan for cell in tried]
        )
        best = int(np.nanargmin(y))
        without[removed] = float(x[best]) if _censored(y, best) else _vertex(x, y, best)
    return without


def _basin(x: NDArray[np.float64], y: NDArray[np.float64], best: int) -> tuple[float, float, bool, bool]:
    """Where the loss is within ``BASIN`` of the best cell's, by the same parabola that gives the optimum.

    The optimum is therefore always inside. Beyond the neighbours, and where there is no parabola, the loss is
    interpolated linearly.
    """
    limit = y[best] + BASIN * abs(y[best])
    ends = [_walk(x, y, best, way, limit) for way in (-1, 1)]
    if not _censored(y, best) and (parabola := _parabola(x, y, best))[0] > 0:
        curvature, vertex = parabola
        half = math.sqrt((limit - y[best]) / curvature + (x[best] - vertex) ** 2)
        for index, way in enumerate((-1, 1)):
            if y[best + way] > limit:
                ends[index] = (vertex + way * half, False)
    (low, open_low), (high, open_high) = ends
    return low, high, open_low, open_high


def _walk(
    x: NDArray[np.float64], y: NDArray[np.float64], best: int, way: int, limit: float
) -> tuple[float, bool]:
    """Go from the best cell until the interpolated loss passes ``limit``; True if the curve ends before."""
    here = best
    while 0 <= here + way < len(x) and not math.isnan(y[here + way]):
        after = here + way
        if y[after] > limit:
            share = (limit - y[here]) / (y[after] - y[here])
            return float(x[here] + share * (x[after] - x[here])), False
        here = after
    return float(x[here]), True
