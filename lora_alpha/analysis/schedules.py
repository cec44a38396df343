"""Does moving α during training beat the best constant α? Best over α of each, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_alpha.analysis.cells import CONSTANT, MIN_SEEDS, Cell, best_cell
from lora_alpha.analysis.compared import Compared, Limit, Outcome, compare, shown
from lora_alpha.analysis.intervals import MARGIN, WINNER_TAIL
from lora_alpha.analysis.route import Minimum, Route, find_minima, take_route
from lora_alpha.analysis.yardstick import Yardstick, yardstick

ScheduleVerdict = Literal["better", "worse", "equivalent", "undecided", "not_enough_data"]
Key = tuple[str, int, float, float]  # method, rank, lr, lr ratio
VERDICTS: dict[Outcome, ScheduleVerdict] = {
    "same": "equivalent",
    "lower": "better",
    "higher": "worse",
    "open": "undecided",
}
LIMITS: dict[Limit, str] = {
    "seeds": f"fewer than {MIN_SEEDS} seeds in common",
    "low_edge": "the smallest α is the best of one side or may lie above its minimum: sweep smaller α",
    "high_edge": "the largest α is the best of one side or may lie below its minimum: sweep larger α",
    "cliff": "a cell next to a best one diverged or came to no value: how low it gets before that is open",
    "spacing": "at equal α the schedules do not show this difference: it may come from the spacing of α",
    "width": "neither within the margin nor clear of it: add seeds",
}


@dataclass(frozen=True)
class ScheduleComparison:
    """One schedule of α against constant α at one (method, rank, lr, lr_ratio).

    ``difference`` is (schedule - constant α), each at its minimum over α, between the cells, paired by seed,
    as a share: of the loss where ratios of the metric mean something, else of its range over the sweep. It is
    of costs, lower is better: below 0 the schedule is better. ``low``, ``high``: its interval, at 95 % for
    all schedules of the group together. ``gap``, ``gap_low``, ``gap_high``: the same in the metric's unit.

    The verdict is ``equivalent`` if the 90 % interval lies within ± margin (two one-sided tests at 5 %);
    ``better`` or ``worse`` if the difference exceeds the margin and its interval, at 98 % for all schedules
    of the group together, is clear of 0; else ``undecided``, and ``limits`` say why.
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
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    limits: tuple[Limit, ...] = ()


def compare_schedules(cells: Sequence[Cell], *, margin: float = MARGIN) -> list[ScheduleComparison]:
    """Every schedule of every group of cells that has also constant α, in the order of the cells.

    Several schedules against one constant α are several chances of a lucky one: with m schedules the tails of
    intervals are 1/m of what they are for one (Bonferroni).

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> def run(name: str, k: int, seed: int) -> RunOutcome:
    ...     loss = {"constant": 1.0, "ramp": 0.5}[name] + 0.1 * (k - 3) ** 2 + seed / 99
    ...     return RunOutcome("lora", 4, 2.0**k, 2.0, 1e-3, seed, "finished", loss, alpha_schedule=name)
    >>> runs = [run(name, k, seed) for name in ("constant", "ramp") for k in range(7) for seed in range(3)]
    >>> compare_schedules(make_cells(runs))[0].verdict
    'better'
    """
    groups: dict[Key, dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell.rank is not None and cell.alpha is not None:
            key = (cell.method, cell.rank, cell.lr, cell.lr_ratio)
            groups.setdefault(key, {}).setdefault(cell.alpha_schedule, []).append(cell)
    measure, minima = yardstick(cells), _minima(groups)
    found = []
    for key, by_schedule in sorted(groups.items()):
        moving = [name for name in by_schedule if name != CONSTANT]
        for name in moving:
            sides = minima.get((key, name)), minima.get((key, CONSTANT))
            pair = None if sides[0] is None or sides[1] is None else compare(sides[0], sides[1])
            found.append(
                _comparison(
                    by_schedule[name],
                    by_schedule.get(CONSTANT, []),
                    pair,
                    measure,
                    margin=margin,
                    num_schedules=len(moving),
                )
            )
    return found


def schedules_verdict(items: Sequence[ScheduleComparison]) -> str:
    """One sentence on whether any schedule beats the best constant α; "No" only where all were decided."""
    if not items:
        return "No run of this sweep moves α during training."
    judged = [item for item in items if item.verdict != "not_enough_data"]
    if not judged:
        return "Not enough data to say whether a schedule beats the best constant α."
    better = [item for item in judged if item.verdict == "better"]
    if better:
        best = min(better, key=lambda item: item.gap or 0.0)
        by = f"{-(best.gap or 0):.3g}" if best.difference is None else f"{-best.difference:.1%}"
        return (
            f"Yes: {len(better)} of {len(judged)} comparisons beat the best constant α, the best by {by} "
            f"({best.alpha_schedule}, rank {best.rank})."
        )
    worse = sum(item.verdict == "worse" for item in judged)
    same = sum(item.verdict == "equivalent" for item in judged)
    still, missing = len(judged) - worse - same, len(items) - len(judged)
    counts = f"{worse} are worse, {same} equivalent within the margin"
    if still or missing:
        without = f", {missing} without enough data" if missing else ""
        return (
            f"Undecided: of {len(items)} comparisons none is known to beat the best constant α; {counts}, "
            f"{still} undecided{without}."
        )
    return f"No: of {len(judged)} comparisons none beats the best constant α; {counts}."


def _minima(groups: dict[Key, dict[str, list[Cell]]]) -> dict[tuple[Key, str], Minimum]:
    """The minimum over α of every schedule in every group; ranks of one schedule are one surface."""
    routes: dict[tuple[str, float, float, str], list[tuple[tuple[Key, str], Route]]] = {}
    for key, by_schedule in sorted(groups.items()):
        if set(by_schedule) == {CONSTANT}:
            continue
        # Positions are those of one scale, so that equal α are equal positions.
        base = min(cell.alpha for of_one in by_schedule.values() for cell in of_one if cell.alpha is not None)
        for name, of_one in by_schedule.items():
            if best_cell(of_one) is not None:
                route = take_route(of_one, "alpha", base=base)
                routes.setdefault((key[0], *key[2:], name), []).append(((key, name), route))
    return {
        place: minimum
        for surface in routes.values()
        for (place, _), minimum in zip(surface, find_minima([route for _, route in surface]), strict=True)
    }


def _comparison(
    cells: Sequence[Cell],
    constant: Sequence[Cell],
    pair: Compared | None,
    measure: Yardstick,
    *,
    margin: float,
    num_schedules: int,
) -> ScheduleComparison:
    best, reference = best_cell(cells), best_cell(constant)
    verdict: ScheduleVerdict = "not_enough_data"
    limits: tuple[Limit, ...] = ()
    difference, level = None, 0.0
    if not constant:
        reason = "no cell with constant α at this method, rank and learning rate"
    elif pair is None:
        which = "of this schedule" if best is None else "with constant α"
        reason = f"no cell {which} finished without a divergence"
    elif not pair.by_seed:
        reason = "no seed in common"
    else:
        assert best is not None
        assert reference is not None
        level = (abs(best.mean or 0.0) + abs(reference.mean or 0.0)) / 2
        difference = pair.difference()
        tolerance = measure.tolerance(margin, level=level)
        outcome, limits = pair.judge((), tolerance=tolerance, tail=WINNER_TAIL / num_schedules)
        verdict = VERDICTS[outcome]
        reason = ""
    numbers = shown(difference, measure, level=level, tail=0.025 / num_schedules)
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
        num_seeds=0 if pair is None else len(pair.by_seed),
        verdict=verdict,
        reason=reason or _sentence(numbers, measure, limits),
        limits=limits,
        **numbers,
    )


def _sentence(numbers: dict[str, float | None], measure: Yardstick, limits: Sequence[Limit]) -> str:
    """The difference with its interval, and what keeps the comparison open."""
    share, low, high = (_percent(numbers[name]) for name in ("difference", "low", "high"))
    figures = f"{share} {measure.phrase} ({low} to {high}) against the best constant α"
    parts = [] if numbers["gap"] is None else [figures]
    return "; ".join(parts + [LIMITS[limit] for limit in limits])


def _percent(share: float | None) -> str:
    return "any" if share is None else f"{share:+.1%}"
