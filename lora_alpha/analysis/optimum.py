"""The best α (or lr) of the curves of a sweep, how sure it is, and how wide its basin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.cells import Cell, cost_table
from lora_alpha.analysis.curves import Curve, CurveDraws
from lora_alpha.analysis.surface import NUM_DRAWS, fit_surface
from lora_alpha.analysis.yardstick import yardstick
from lora_alpha.methods import method_scale

Target = Literal["alpha", "lr"]
Censored = Literal["", "low_edge", "high_edge", "cliff"]
BASIN = 0.02  # "as good as the best": within this share of its loss
WITHIN_BASIN = f"within {100 * BASIN:g} %"
MIN_CELLS = 3  # measured cells that a curve needs before its minimum can be estimated
ENDS = (0.025, 0.975)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Where a curve of loss against α (or lr) is lowest (or a curve of accuracy highest).

    Attributes:
        method: Fine-tuning method.
        rank: Rank.
        lr: The learning rate of the curve, None for target ``lr``.
        alpha: The α of the curve, None for target ``alpha``.
        lr_ratio: lr_B / lr_A of the curve.
        target: What was searched over.
        value: The optimum; the best cell itself where it is censored at an edge of the grid.
        low: Lower end of its 95 % interval; None where it is unknown or unbounded.
        high: Upper end, likewise.
        scale: Effective scale s at the optimum.
        basin_low: Lowest value whose loss is within ``BASIN`` of the lowest. ``value`` is always inside the
            basin.
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
        basin_low_from: Lower end of the 95 % interval of ``basin_low``; None where it lies beyond the cells.
        basin_low_to: Upper end of it.
        basin_high_from: Lower end of the 95 % interval of ``basin_high``; None where it lies beyond them.
        basin_high_to: Upper end of it.
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
    basin_low_from: float | None = None
    basin_low_to: float | None = None
    basin_high_from: float | None = None
    basin_high_to: float | None = None

    @property
    def fixed(self) -> float:
        """The lr of the curve, or its α for target ``lr``."""
        fixed = self.lr if self.target == "alpha" else self.alpha
        assert fixed is not None
        return fixed

    @property
    def at_edge(self) -> bool:
        """The minimum may lie anywhere beyond the grid."""
        return self.censored in ("low_edge", "high_edge")


@dataclass(frozen=True, eq=False)
class Located:
    """An optimum and the draws that it was read from; None where a curve has too few measured cells."""

    optimum: Optimum
    draws: CurveDraws | None

    @property
    def inside(self) -> bool:
        """Whether the draws say where the minimum lies: it is not one beyond the grid."""
        return self.draws is not None and not self.optimum.at_edge


CurveKey = tuple[str, float, float]  # method, lr_ratio, and the lr (or α) of the curves


def find_optimum(cells: Sequence[Cell], *, target: Target = "alpha") -> Optimum | None:
    """The optimum of one curve: cells equal in all but α (or lr). None if no cell is measured.

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> runs = [RunOutcome("lora", 4, 2.0**k, 2.0**k / 4, 1e-3, 0, "finished", 1 + (k - 6.25) ** 2 / 9)
    ...         for k in range(3, 10)]
    >>> round(float(np.log2(find_optimum(make_cells(runs)).value)), 1)
    6.2
    """
    located = locate([cells], target=target)
    return located[0].optimum if located else None


def find_optima(cells: Sequence[Cell], *, target: Target = "alpha") -> list[Optimum]:
    """The optimum of every curve: one per method, rank, lr_ratio and lr (or α, for target ``lr``).

    A curve needs three tried cells, otherwise there is no question of where on it the best lies.
    """
    groups = curves_of(cells, target=target).values()
    return [found.optimum for curves in groups for found in locate(curves, target=target)]


def curves_of(cells: Sequence[Cell], *, target: Target = "alpha") -> dict[CurveKey, list[list[Cell]]]:
    """The curves of at least three tried cells, by what they have in common, in the order of their ranks."""
    groups: dict[CurveKey, dict[int, list[Cell]]] = {}
    for cell in cells:
        if cell.rank is None or cell.alpha is None:
            continue
        fixed = cell.lr if target == "alpha" else cell.alpha
        groups.setdefault((cell.method, cell.lr_ratio, fixed), {}).setdefault(cell.rank, []).append(cell)
    found = {
        key: [curve for _, curve in sorted(by_rank.items()) if len(curve) >= 3]
        for key, by_rank in sorted(groups.items())
    }
    return {key: curves for key, curves in found.items() if curves}


def locate(curves: Sequence[Sequence[Cell]], *, target: Target = "alpha") -> list[Located]:
    """The optima of curves that have method, lr_ratio and lr (or α) in common, one a rank, taken together.

    Curves without a measured cell are left out.
    """
    tried = [_tried(curve, target) for curve in curves]
    tried = [curve for curve in tried if any(cell.measured for cell in curve)]
    seeds = sorted({seed for curve in tried for cell in curve for seed in cell.losses})
    reaches = [_between_walls(curve) for curve in tried]
    fitted = [row for row, (first, last) in enumerate(reaches) if last - first >= MIN_CELLS]
    surfaces = [_curve(tried[row], *reaches[row], seeds=seeds, target=target) for row in fitted]
    found = dict(zip(fitted, fit_surface(surfaces).curves, strict=True)) if fitted else {}
    stick = yardstick(cell for curve in tried for cell in curve)
    shift = _level_draws(surfaces)
    located = []
    for row, curve in enumerate(tried):
        best, draws = _best(curve), found.get(row)
        tolerance = np.full(NUM_DRAWS, stick.tolerance(BASIN, level=1.0))
        if stick.relative and draws is not None:
            lowest = (curve[best].mean or 0.0) - draws.excess(position(curve[best], target))
            tolerance *= np.maximum(lowest + shift, 0.0)
        located.append(_located(curve, best, draws, tolerance=tolerance, target=target))
    return located


def _level_draws(curves: Sequence[Curve]) -> Array:
    """How far the mean level over these seeds may lie from that over all seeds: (NUM_DRAWS,)."""
    num_seeds = len(curves[0].y) if curves else 0
    if num_seeds < 2:
        return np.zeros(NUM_DRAWS)
    variances = []
    for curve in curves:
        here = np.isfinite(curve.y).any(axis=1)
        levels = np.nanmean(curve.y[here] - np.nanmean(curve.y, axis=0), axis=1)
        variances.append(float(levels.var(ddof=1)) if len(levels) > 1 else math.nan)
    variance = float(np.nanmean(variances)) if np.isfinite(variances).any() else 0.0
    draws: Array = np.random.default_rng(0).standard_t(num_seeds - 1, NUM_DRAWS)
    return draws * math.sqrt(variance / num_seeds)


def value_of(cell: Cell, target: Target) -> float:
    """The cell's α, or its lr."""
    value = cell.alpha if target == "alpha" else cell.lr
    assert value is not None
    return value


def position(cell: Cell, target: Target) -> float:
    """log₂ of the cell's α, or of its lr."""
    return math.log2(value_of(cell, target))


def _tried(curve: Sequence[Cell], target: Target) -> list[Cell]:
    """The cells that say something, in order."""
    said = [cell for cell in curve if cell.tried]
    return sorted(said, key=lambda cell: position(cell, target))


def _best(curve: Sequence[Cell]) -> int:
    costs = [cell.cost if cell.measured and cell.cost is not None else math.inf for cell in curve]
    return costs.index(min(costs))


def _between_walls(curve: Sequence[Cell]) -> tuple[int, int]:
    """The measured cells about the best one, up to those that diverged: first and one past the last."""
    first = last = _best(curve)
    while first > 0 and curve[first - 1].measured:
        first -= 1
    while last + 1 < len(curve) and curve[last + 1].measured:
        last += 1
    return first, last + 1


def _curve(curve: Sequence[Cell], first: int, last: int, *, seeds: Sequence[int], target: Target) -> Curve:
    cells = curve[first:last]
    return Curve(
        x=np.array([position(cell, target) for cell in cells]),
        y=cost_table(cells, seeds),
        wall_low=position(curve[first - 1], target) if first > 0 else -math.inf,
        wall_high=position(curve[last], target) if last < len(curve) else math.inf,
    )


def _located(
    curve: Sequence[Cell], best: int, draws: CurveDraws | None, *, tolerance: Array, target: Target
) -> Located:
    cell = curve[best]
    x = np.array([position(cell, target) for cell in curve])
    censored = _censored(curve, best)
    value, low, high = float(x[best]), None, None
    if draws is not None:
        ends = np.quantile(draws.where, [ENDS[0], 0.5, ENDS[1]])
        if censored == "high_edge" and ends[2] < x[-1]:
            censored = ""  # the best cell is the last, and yet the curve turns before it
        if censored == "low_edge" and ends[0] > x[0]:
            censored = ""
        if censored not in ("low_edge", "high_edge"):
            low, value, high = (float(end) for end in ends)
    basin = _basin(x, curve, best, value, draws, tolerance)
    bound_low = 2.0 ** x[best - 1] if censored and best > 0 else None
    bound_high = 2.0 ** x[best + 1] if censored and best < len(curve) - 1 else None
    assert cell.rank is not None
    assert cell.mean is not None
    alpha = 2.0**value if target == "alpha" else cell.alpha
    optimum = Optimum(
        method=cell.method,
        rank=cell.rank,
        lr=cell.lr if target == "alpha" else None,
        alpha=None if target == "alpha" else cell.alpha,
        lr_ratio=cell.lr_ratio,
        target=target,
        value=2.0**value,
        low=None if low is None else 2.0**low,
        high=None if high is None else 2.0**high,
        scale=method_scale(cell.method, rank=cell.rank, alpha=alpha),
        loss=cell.mean,
        censored=censored,
        bound_low=None if bound_low is None else float(bound_low),
        bound_high=None if bound_high is None else float(bound_high),
        num_seeds=cell.n,
        num_diverged=sum(cell.num_diverged for cell in curve),
        basin_low=2.0**basin.low,
        basin_high=2.0**basin.high,
        basin_open_low=basin.open_low,
        basin_open_high=basin.open_high,
        basin_octaves=basin.high - basin.low,
        basin_low_from=_power(basin.low_ends, 0),
        basin_low_to=_power(basin.low_ends, 1),
        basin_high_from=_power(basin.high_ends, 0),
        basin_high_to=_power(basin.high_ends, 1),
    )
    return Located(optimum, draws)


def _power(ends: tuple[float, float] | None, which: int) -> float | None:
    return None if ends is None else 2.0 ** ends[which]


def _censored(curve: Sequence[Cell], best: int) -> Censored:
    last = len(curve) - 1
    if (best < last and not curve[best + 1].measured) or (best > 0 and not curve[best - 1].measured):
        return "cliff"
    if best == 0:
        return "low_edge"
    return "high_edge" if best == last else ""


@dataclass(frozen=True)
class _Basin:
    """Ends of a basin in log₂, whether it goes on beyond them, and their intervals."""

    low: float
    high: float
    open_low: bool
    open_high: bool
    low_ends: tuple[float, float] | None = None
    high_ends: tuple[float, float] | None = None


def _basin(
    x: Array, curve: Sequence[Cell], best: int, value: float, draws: CurveDraws | None, tolerance: Array
) -> _Basin:
    """Where the loss is within ``tolerance`` of the lowest, as far as cells reach."""
    first, last = _between_walls(curve)
    if draws is None:
        here = float(x[best])
        return _Basin(here, here, True, True)
    cells = (float(x[first]), float(x[last - 1]))
    low, low_ends = _basin_end(draws, -1, tolerance, cells)
    high, high_ends = _basin_end(draws, 1, tolerance, cells)
    return _Basin(
        low=min(max(low, cells[0]), value),
        high=max(min(high, cells[1]), value),
        open_low=low < cells[0],
        open_high=high > cells[1],
        low_ends=low_ends,
        high_ends=high_ends,
    )


def _basin_end(
    draws: CurveDraws, way: int, tolerance: Array, cells: tuple[float, float]
) -> tuple[float, tuple[float, float] | None]:
    """The median end of the basin on one side with its interval; none where it lies beyond the cells."""
    low, middle, high = (
        float(end) for end in np.quantile(draws.reaches(tolerance, way=way), [ENDS[0], 0.5, ENDS[1]])
    )
    return middle, (low, high) if cells[0] <= middle <= cells[1] else None
