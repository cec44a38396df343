"""Does moving α during training beat the best constant α? Best over α of each, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_alpha.analysis.cells import CONSTANT, Cell, best_cell
from lora_alpha.analysis.intervals import MARGIN, PairedDifference, paired_difference, shared_seeds

ScheduleVerdict = Literal["better", "worse", "equivalent", "undecided", "not_enough_data"]


@dataclass(frozen=True)
class ScheduleComparison:
    """One schedule of α against constant α at one (method, rank, lr, lr_ratio).

    ``difference`` is the mean over the seeds that both have of (loss of the schedule - loss of constant α) /
    mean loss, each at the α that is best in the mean over seeds: negative means that the schedule is better.
    ``low``, ``high``: its interval, at 95 % for all schedules of the group together. The verdict is
    ``better`` or ``worse`` if that interval excludes 0, else ``equivalent`` if the 90 % interval lies within
    ± margin (two one-sided tests at 5 %), else ``undecided``.
    """

    method: str
    rank: int
    lr: float
    lr_ratio: float
    alpha_schedule: str
    best_alpha: float | None
    loss: float | None
    constant_alpha: float | None
    constant_loss: float | None
    num_alphas: int
    num_diverged: int
    difference: float | None
    low: float | None
    high: float | None
    num_seeds: int
    verdict: ScheduleVerdict
    reason: str


def compare_schedules(cells: Sequence[Cell], *, margin: float = MARGIN) -> list[ScheduleComparison]:
    """Every schedule of every group of cells that has also constant α, in the order of the cells.

    Several schedules against one constant α are several chances of a lucky one: with m schedules the interval
    is at 1 - 0.05/m (Bonferroni).

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> runs = [RunOutcome("lora", 4, 8.0, 2.0, 1e-3, seed, "finished", loss + seed / 99, alpha_schedule=name)
    ...         for name, loss in (("constant", 1.0), ("ramp", 0.5)) for seed in range(3)]
    >>> compare_schedules(make_cells(runs))[0].verdict
    'better'
    """
    groups: dict[tuple[str, int, float, float], dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell.rank is not None and cell.alpha is not None:
            key = (cell.method, cell.rank, cell.lr, cell.lr_ratio)
            groups.setdefault(key, {}).setdefault(cell.alpha_schedule, []).append(cell)
    found = []
    for _, by_schedule in sorted(groups.items()):
        moving = [name for name in by_schedule if name != CONSTANT]
        for name in moving:
            constant = by_schedule.get(CONSTANT, [])
            found.append(_compare(by_schedule[name], constant, margin=margin, num_schedules=len(moving)))
    return found


def schedules_verdict(items: Sequence[ScheduleComparison]) -> str:
    """One sentence on whether any schedule beats the best constant α."""
    if not items:
        return "No run of this sweep moves α during training."
    judged = [item for item in items if item.verdict != "not_enough_data"]
    if not judged:
        return "Not enough data to say whether a schedule beats the best constant α."
    better = [item for item in judged if item.verdict == "better" and item.difference is not None]
    if better:
        best = min(better, key=lambda item: item.difference or 0.0)
        return (
            f"Yes: {len(better)} of {len(judged)} comparisons beat the best constant α, the best by "
            f"{-(best.difference or 0):.1%} ({best.alpha_schedule}, rank {best.rank})."
        )
    worse = sum(item.verdict == "worse" for item in judged)
    same = sum(item.verdict == "equivalent" for item in judged)
    return (
        f"No: of {len(judged)} comparisons none beats the best constant α; {worse} are worse, "
        f"{same} equivalent within the margin, {len(judged) - worse - same} undecided."
    )


def _compare(
    cells: Sequence[Cell], constant: Sequence[Cell], *, margin: float, num_schedules: int
) -> ScheduleComparison:
    best, reference = best_cell(cells), best_cell(constant)
    seeds = shared_seeds(best.losses, reference.losses) if best and reference else []
    found: PairedDifference | None = None
    verdict: ScheduleVerdict = "not_enough_data"
    if not constant:
        reason = "no cell with constant α at this method, rank and learning rate"
    elif best is None or reference is None:
        which = "of this schedule" if best is None else "with constant α"
        reason = f"no cell {which} finished without a divergence"
    elif len(seeds) < 2:
        reason = f"{len(seeds)} seed in common: needs at least 2, better 3"
    else:
        tail = 0.025 / num_schedules
        found = paired_difference(best.losses, reference.losses, margin=margin, tail=tail)
        verdict = _verdict(found)
        reason = f"{found.mean:+.1%} ({found.low:+.1%} to {found.high:+.1%}) against the best constant α"
    first = cells[0]
    assert first.rank is not None
    return ScheduleComparison(
        method=first.method,
        rank=first.rank,
        lr=first.lr,
        lr_ratio=first.lr_ratio,
        alpha_schedule=first.alpha_schedule,
        best_alpha=best.alpha if best else None,
        loss=best.mean if best else None,
        constant_alpha=reference.alpha if reference else None,
        constant_loss=reference.mean if reference else None,
        num_alphas=len(cells),
        num_diverged=sum(cell.num_diverged for cell in cells),
        difference=found.mean if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        num_seeds=len(seeds),
        verdict=verdict,
        reason=reason,
    )


def _verdict(found: PairedDifference) -> ScheduleVerdict:
    if found.high < 0:
        return "better"
    if found.low > 0:
        return "worse"
    return "equivalent" if found.within_margin else "undecided"
