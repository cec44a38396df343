"""The best α whose forgetting stays within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_alpha.analysis.cells import Cell, best_cell, constant_alpha
from lora_alpha.analysis.law import nothing_measured


@dataclass(frozen=True, kw_only=True)
class BoundedOptimum:
    """The best measured α of one curve (method, rank, lr, lr_ratio) under a bound on mean forgetting.

    Attributes:
        method: Fine-tuning method.
        rank: Rank.
        lr: Learning rate.
        lr_ratio: lr_B / lr_A.
        max_forgetting: The bound, in the unit of forgetting_loss; a cell at the bound obeys.
        alpha: The best measured α whose mean forgetting obeys; None where none does or forgetting is unknown.
        value: Its mean of the metric.
        forgetting: Its mean forgetting.
        free_alpha: The best measured α without the bound, for comparison.
        free_value: Its mean of the metric.
        free_forgetting: Its mean forgetting, None where it was not recorded.
        price: What the bound costs, in the metric's unit: how much worse ``value`` is than ``free_value``.
        boundary_low: α below ``alpha`` at which forgetting crosses the bound, interpolated; None where it
            does not within the grid.
        boundary_high: α above ``alpha``, likewise.
        num_obeying: Measured cells that obey.
        num_exceeding: Measured cells that do not.
        num_unknown: Measured cells of which no run recorded forgetting: they cannot be chosen either.
        reason: One sentence on what was found.
    """

    method: str
    rank: int
    lr: float
    lr_ratio: float
    max_forgetting: float
    alpha: float | None
    value: float | None
    forgetting: float | None
    free_alpha: float | None
    free_value: float | None
    free_forgetting: float | None
    price: float | None
    boundary_low: float | None
    boundary_high: float | None
    num_obeying: int
    num_exceeding: int
    num_unknown: int
    reason: str


def bounded_optima(cells: Sequence[Cell], *, max_forgetting: float) -> list[BoundedOptimum]:
    """One answer for each (method, rank, lr, lr_ratio) with constant α, in the order of the cells.

    The bound is on the mean over seeds; noise in it is not accounted for. Between neighbouring measured α
    forgetting is taken for a straight line in log₂ α: the boundary is where that line crosses the bound.

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> runs = [RunOutcome("lora", 4, alpha, 1.0, 1e-3, 0, "finished", loss, forgetting=kept)
    ...         for alpha, loss, kept in ((16.0, 1.0, 0.1), (32.0, 0.8, 0.2), (64.0, 0.7, 0.4))]
    >>> found, = bounded_optima(make_cells(runs), max_forgetting=0.3)
    >>> found.alpha, round(found.boundary_high, 2), round(found.price, 2)
    (32.0, 45.25, 0.1)
    """
    curves: dict[tuple[str, int, float, float], list[Cell]] = {}
    for cell in constant_alpha(cells):
        if cell.rank is not None and cell.alpha is not None and cell.measured:
            curves.setdefault((cell.method, cell.rank, cell.lr, cell.lr_ratio), []).append(cell)
    return [_bounded(curve, max_forgetting) for curve in curves.values()]


def no_bound_reasons(cells: Sequence[Cell]) -> list[str]:
    """Why no α can be chosen under a bound at all; empty if one can."""
    measured = [cell for cell in cells if cell.measured]
    if not measured:
        return [nothing_measured(cells)]
    if all(cell.forgetting is None for cell in measured):
        return ["forgetting was not recorded in this sweep: record forgetting_loss to bound it"]
    return []


def _bounded(curve: Sequence[Cell], bound: float) -> BoundedOptimum:
    known = sorted((c for c in curve if c.forgetting is not None), key=lambda cell: cell.alpha or 0.0)
    obeying = [cell for cell in known if cell.forgetting is not None and cell.forgetting <= bound]
    best, free = best_cell(obeying), best_cell(curve)
    assert free is not None
    assert free.rank is not None
    low = high = price = None
    if best is not None:
        at = known.index(best)
        low, high = _boundary(known[at::-1], bound), _boundary(known[at:], bound)
        assert best.cost is not None
        assert free.cost is not None
        price = best.cost - free.cost
    return BoundedOptimum(
        method=free.method,
        rank=free.rank,
        lr=free.lr,
        lr_ratio=free.lr_ratio,
        max_forgetting=bound,
        alpha=best.alpha if best else None,
        value=best.mean if best else None,
        forgetting=best.forgetting if best else None,
        free_alpha=free.alpha,
        free_value=free.mean,
        free_forgetting=free.forgetting,
        price=price,
        boundary_low=low,
        boundary_high=high,
        num_obeying=len(obeying),
        num_exceeding=len(known) - len(obeying),
        num_unknown=len(curve) - len(known),
        reason=_sentence(best, free, bound, num_known=len(known), num_cells=len(curve)),
    )


def _boundary(onwards: Sequence[Cell], bound: float) -> float | None:
    """Where forgetting first exceeds ``bound`` on the way through these cells, the first of which obeys."""
    for inside, outside in zip(onwards, onwards[1:], strict=False):
        assert inside.alpha is not None
        assert outside.alpha is not None
        assert inside.forgetting is not None
        assert outside.forgetting is not None
        if outside.forgetting > bound:
            share = (bound - inside.forgetting) / (outside.forgetting - inside.forgetting)
            return float(inside.alpha * (outside.alpha / inside.alpha) ** share)
    return None


def _sentence(best: Cell | None, free: Cell, bound: float, *, num_known: int, num_cells: int) -> str:
    within = f"forgetting ≤ {bound:g}"
    if not num_known:
        return "forgetting was not recorded here"
    if best is None:
        return f"no measured α keeps {within}; try smaller α"
    missing = num_cells - num_known
    unknown = f"; {missing} cells without forgetting are left out" if missing else ""
    if best is free:
        return f"the best α keeps {within} anyway{unknown}"
    assert best.mean is not None
    assert free.mean is not None
    worse = f"{abs(best.mean - free.mean):.4g}{f' {free.metric.unit}' if free.metric.unit else ''}"
    return f"{within} costs {worse} of {free.metric.name} against α = {free.alpha:g}{unknown}"
