"""Is raising α as good as raising η? Best over η at fixed α against best over α at fixed η."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lora_alpha.analysis.cells import MIN_SEEDS, Cell, best_cell
from lora_alpha.analysis.compared import Compared, Limit, Outcome, compare, shown
from lora_alpha.analysis.deciding import MOST_SEEDS, DecidingCell, Plan, to_run
from lora_alpha.analysis.intervals import MARGIN, WINNER_TAIL, Difference, seeds_for
from lora_alpha.analysis.route import Route, find_minima, take_route
from lora_alpha.analysis.yardstick import Yardstick, yardstick
from lora_alpha.methods import METHODS

# "mixed" is a verdict on several ranks that disagree.
Verdict = Literal["equivalent", "alpha_better", "lr_better", "undecided", "mixed", "not_enough_data"]
Key = tuple[str, int, float]  # method, rank, lr ratio

# What half an interval must come below, as a share of the margin, where the estimate lies near the margin.
MIN_WIDTH = 0.25
VERDICTS: dict[Outcome, Verdict] = {
    "same": "equivalent",
    "lower": "alpha_better",
    "higher": "lr_better",
    "open": "undecided",
}
SAID: dict[Verdict, str] = {
    "equivalent": "equivalent",
    "alpha_better": "α better",
    "lr_better": "η better",
    "undecided": "undecided",
    "mixed": "ranks disagree",
    "not_enough_data": "not enough data",
}


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """The comparison at one (method, rank, lr ratio), paired by seed.

    What is compared are the routes' minima between their cells. Differences are of costs, lower is better:
    below 0 means that α is better, whichever way the metric goes.

    Attributes:
        method: Fine-tuning method.
        rank: Rank.
        base_alpha: The smallest α tried, from which the η route starts.
        base_lr: The smallest η tried, from which the α route starts.
        best_alpha: α of the α route's best cell.
        best_lr: η of the η route's best cell.
        loss_alpha_route: Mean of that cell, in the metric's unit.
        loss_lr_route: Likewise.
        diverged_alpha_route: Diverged runs on the route.
        diverged_lr_route: Likewise.
        difference: (α route - η route) as a share: of the loss where ratios of it mean something, else
            of its range over the sweep. None where there is nothing to take a share of.
        low: Lower end of its 95 % interval.
        high: Upper end.
        margin: A share that does not matter.
        num_seeds: Seeds that both routes have.
        verdict: ``equivalent``: the 90 % interval lies within ± margin (two one-sided tests at 5 %).
            ``alpha_better``, ``lr_better``: the difference exceeds the margin, and its interval at 98 % for
            all comparisons of the sweep together is clear of 0. ``undecided``: see ``limits``.
        reason: The verdict with its figures and conditions.
        lr_ratio: lr_B / lr_A.
        gap: The difference in the metric's unit.
        gap_low: Lower end of its 95 % interval.
        gap_high: Upper end.
        tolerance: The margin in the metric's unit.
        error: Standard error of ``gap``.
        freedom: Its degrees of freedom.
        gap_by_seed: Seed → its difference.
        limits: Why it is undecided.
        deciding_cells: The runs that would decide it.
    """

    method: str
    rank: int
    base_alpha: float
    base_lr: float
    best_alpha: float | None
    best_lr: float | None
    loss_alpha_route: float | None
    loss_lr_route: float | None
    diverged_alpha_route: int
    diverged_lr_route: int
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    num_seeds: int
    verdict: Verdict
    reason: str
    lr_ratio: float = 1.0
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    tolerance: float | None = None
    error: float | None = None
    freedom: float | None = None
    gap_by_seed: dict[int, float] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    deciding_cells: tuple[DecidingCell, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """Both routes of one method, rank and lr ratio."""

    cells: tuple[Cell, ...]
    alpha: Route
    lr: Route
    base_alpha: float
    base_lr: float

    @property
    def missing(self) -> str:
        """Why they cannot be compared; empty where they can."""
        if len(self.alpha.cells) < 2 or len(self.lr.cells) < 2:
            return "needs at least two α at the smallest η and two η at the smallest α"
        best = best_cell(self.alpha.cells), best_cell(self.lr.cells)
        if best[0] is None or best[1] is None:
            return "no cell of one of the routes finished without a divergence"
        alphas = {seed for place in self.alpha.measured for seed in self.alpha.cells[place].losses}
        lrs = {seed for place in self.lr.measured for seed in self.lr.cells[place].losses}
        return "" if alphas & lrs else "no seed was run on both routes"


def compare_routes(cells: Sequence[Cell], *, margin: float = MARGIN) -> list[Equivalence]:
    """One comparison for each method, rank and lr ratio that has a grid of α and η.

    The base point is the smallest α and the smallest η that were tried; both routes start there. Full
    fine-tuning and methods whose α follows from the rank have no such question.

    Source: Schuirmann 1987 for the two one-sided tests; Bonferroni for several ranks.
    """
    groups: dict[Key, list[Cell]] = {}
    for cell in cells:
        if cell.rank is not None and cell.alpha is not None and _chooses_alpha(cell.method):
            groups.setdefault((cell.method, cell.rank, cell.lr_ratio), []).append(cell)
    pairs = {key: _pair(group) for key, group in sorted(groups.items())}
    compared: dict[Key, Compared] = {}
    for surface in sorted({(method, ratio) for method, _, ratio in pairs}):
        alike = {k: p for k, p in pairs.items() if (k[0], k[2]) == surface and not p.missing}
        compared |= _compare(alike)
    measure = yardstick(cells)
    found = []
    for key, pair in pairs.items():
        if key not in compared:
            found.append(_incomparable(key, pair, margin))
            continue
        others = [c for k, c in compared.items() if k != key and (k[0], k[2]) == (key[0], key[2])]
        tail = WINNER_TAIL / len(compared)
        found.append(_judge(key, pair, compared[key], others, measure, margin=margin, tail=tail))
    return found


def _chooses_alpha(method: str) -> bool:
    return method not in METHODS or (METHODS[method].uses_rank and not METHODS[method].alpha_from_rule)


def _pair(cells: Sequence[Cell]) -> _Pair:
    tried = [cell for cell in cells if cell.tried] or list(cells)
    base_alpha = min(cell.alpha for cell in tried if cell.alpha is not None)
    base_lr = min(cell.lr for cell in tried)
    return _Pair(
        cells=tuple(cells),
        alpha=take_route([c for c in cells if c.lr == base_lr], "alpha", base=base_alpha),
        lr=take_route([c for c in cells if c.alpha == base_alpha], "lr", base=base_lr),
        base_alpha=base_alpha,
        base_lr=base_lr,
    )


def _compare(pairs: dict[Key, _Pair]) -> dict[Key, Compared]:
    """The minima of pairs that share their method and lr ratio: all their curves are one surface."""
    minima = find_minima([route for pair in pairs.values() for route in (pair.alpha, pair.lr)])
    return {key: compare(*minima[2 * place : 2 * place + 2]) for place, key in enumerate(pairs)}


def _judge(
    key: Key,
    pair: _Pair,
    found: Compared,
    others: Sequence[Compared],
    measure: Yardstick,
    *,
    margin: float,
    tail: float,
) -> Equivalence:
    by_alpha, by_lr = found.first.cell, found.second.cell
    assert by_alpha.mean is not None
    assert by_lr.mean is not None
    level = (abs(by_alpha.mean) + abs(by_lr.mean)) / 2
    tolerance = measure.tolerance(margin, level=level)
    outcome, limits = found.judge(others, tolerance=tolerance, tail=tail)
    difference = found.difference(others)
    wanted, remark = _deciding(pair, found, limits, difference, tolerance, tail)
    item = Equivalence(
        **_facts(key, pair, margin),
        **shown(difference, measure, level=level),
        num_seeds=len(found.by_seed),
        verdict=VERDICTS[outcome],
        reason="",
        tolerance=tolerance,
        error=None if difference is None else difference.error,
        freedom=None if difference is None else difference.freedom,
        gap_by_seed={seed: gap - found.correction[0] for seed, gap in found.by_seed.items()},
        limits=limits,
        deciding_cells=tuple(wanted),
    )
    return replace(item, reason=_sentence(item, pair, found, measure) + remark)


def _deciding(
    pair: _Pair,
    found: Compared,
    limits: Sequence[Limit],
    difference: Difference | None,
    tolerance: float,
    tail: float,
) -> tuple[list[DecidingCell], str]:
    """The runs that would lift ``limits``, and what is to be said of them."""
    plan = Plan(found.first, found.second, pair.base_alpha, pair.base_lr)
    num_seeds = max(MIN_SEEDS, len(found.by_seed))
    points: set[tuple[float, float]] = set()
    if "seeds" in limits:
        points |= plan.around()
    if {"low_edge", "high_edge", "cliff"} & set(limits):
        points |= plan.beyond_edges()
    if "spacing" in limits:
        points |= plan.matching() or plan.halved()
    if "width" in limits and difference is not None:
        away = abs(difference.mean)
        aim = max(tolerance - away, away if away > tolerance else 0.0, MIN_WIDTH * tolerance)
        more = seeds_for(aim, difference, num_seeds=len(found.by_seed), tail=tail, most=MOST_SEEDS)
        if more is None:
            return [], f"; hopeless at this margin: {MOST_SEEDS} seeds would leave the interval too wide"
        points |= plan.around()
        if found.correction[1] > difference.error / 2:
            points |= plan.halved()
        num_seeds = more
    if not points:
        return [], ""
    seeds = {seed for cell in (*pair.alpha.cells, *pair.lr.cells) for seed in cell.losses}
    wanted = to_run(points, pair.cells, seeds=seeds, num_seeds=num_seeds)
    num_runs = sum(len(cell.seeds) for cell in wanted)
    return wanted, f"; {num_runs} runs should decide it" if num_runs else ""


def _facts(key: Key, pair: _Pair, margin: float) -> dict[str, Any]:
    """What is said of a pair whether it can be compared or not."""
    by_alpha, by_lr = best_cell(pair.alpha.cells), best_cell(pair.lr.cells)
    method, rank, lr_ratio = key
    return {
        "method": method,
        "rank": rank,
        "lr_ratio": lr_ratio,
        "base_alpha": pair.base_alpha,
        "base_lr": pair.base_lr,
        "best_alpha": by_alpha.alpha if by_alpha else None,
        "best_lr": by_lr.lr if by_lr else None,
        "loss_alpha_route": by_alpha.mean if by_alpha else None,
        "loss_lr_route": by_lr.mean if by_lr else None,
        "diverged_alpha_route": sum(cell.num_diverged for cell in pair.alpha.cells),
        "diverged_lr_route": sum(cell.num_diverged for cell in pair.lr.cells),
        "margin": margin,
    }


def _incomparable(key: Key, pair: _Pair, margin: float) -> Equivalence:
    return Equivalence(
        **_facts(key, pair, margin),
        difference=None,
        low=None,
        high=None,
        num_seeds=0,
        verdict="not_enough_data",
        reason=pair.missing,
    )


def _sentence(item: Equivalence, pair: _Pair, found: Compared, measure: Yardstick) -> str:
    """The figures, why it is open, and under which conditions all this holds."""
    parts = [_figures(item, measure), *(_LIMITS[limit](item, found) for limit in item.limits)]
    alphas, lrs = pair.alpha.cells, pair.lr.cells
    conditions = (
        f"α {alphas[0].alpha:g} to {alphas[-1].alpha:g} at η {item.base_lr:g} against "
        f"η {lrs[0].lr:g} to {lrs[-1].lr:g} at α {item.base_alpha:g}, {item.num_seeds} seeds"
    )
    return "; ".join([part for part in parts if part] + [conditions])


def _figures(item: Equivalence, measure: Yardstick) -> str:
    if item.gap is None:
        return "one seed in common says nothing of the scatter" if item.num_seeds == 1 else ""
    unit = measure.metric.unit
    own = f"{item.gap:+.3g}{' ' + unit if unit else ''}"
    low, high = (f"{end:+.1%}" if end is not None else "any" for end in (item.low, item.high))
    if item.difference is None:
        low, high = (f"{end:+.3g}" if end is not None else "any" for end in (item.gap_low, item.gap_high))
        share = f"{own} (95 % interval {low} to {high})"
    else:
        share = f"{item.difference:+.1%} {measure.phrase} (95 % interval {low} to {high}; {own})"
    said = {
        "equivalent": f"the routes' minima differ by less than ±{item.margin:.0%}: α − η is {share}",
        "alpha_better": f"the α route's minimum is better: α − η is {share}",
        "lr_better": f"the η route's minimum is better: α − η is {share}",
    }
    return said.get(item.verdict, f"α − η is {share}")


def _edge(end: str) -> Callable[[Equivalence, Compared], str]:
    which, do = ("smallest", "sweep smaller values") if end == "low_edge" else ("largest", "extend the grid")

    def text(_: Equivalence, found: Compared) -> str:
        at = " and ".join(name for name, side in (("α", found.first), ("η", found.second)) if side.end == end)
        return f"the {which} {at} measured is the best or may be short of it: {do}"

    return text


_LIMITS: dict[Limit, Callable[[Equivalence, Compared], str]] = {
    "seeds": lambda item, _: f"{item.num_seeds} seeds in common: at least {MIN_SEEDS} are needed",
    "same_cell": lambda *_: "both routes are best where they start: there is nothing to raise",
    "low_edge": _edge("low_edge"),
    "high_edge": _edge("high_edge"),
    "cliff": lambda *_: (
        "a cell next to a best one diverged or came to no value: how low the route gets before it is open"
    ),
    "spacing": lambda *_: (
        "cells at equal α·η do not show this difference: it may come from the grids' spacing"
    ),
    "width": lambda item, _: f"neither within ±{item.margin:.0%} nor clear of it",
}
