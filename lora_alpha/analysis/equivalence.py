"""Is raising α as good as raising η? Best over η at fixed α against best over α at fixed η."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lora_alpha.analysis.cells import MIN_SEEDS, Cell, best_cell
from lora_alpha.analysis.deciding import MOST_SEEDS, DecidingCell, Plan, to_run
from lora_alpha.analysis.intervals import (
    MARGIN,
    WINNER_TAIL,
    Difference,
    paired_by_seed,
    paired_difference,
    seeds_for,
)
from lora_alpha.analysis.route import Minimum, Route, find_minima, matched, take_route
from lora_alpha.analysis.yardstick import Yardstick, yardstick
from lora_alpha.methods import METHODS

# "mixed" is a verdict on several ranks that disagree.
Verdict = Literal["equivalent", "alpha_better", "lr_better", "undecided", "mixed", "not_enough_data"]
# What keeps a comparison open: too few seeds, an edge or a cliff at a minimum, both routes' best being the base
# point itself, grids too coarse to match, or an interval that is too wide.
Limit = Literal["seeds", "same_cell", "low_edge", "high_edge", "cliff", "spacing", "width"]

SPACING = (
    1.05  # octaves: coarser grids next to a minimum name a winner only where positions of both routes match
)
EXCESS_FREEDOM = (
    30  # degrees of freedom of the correction's error, of the order of the cells' that it rests on
)
HALF_RANGE = 0.8413  # the share of a normal's probability below one standard deviation
MIN_WIDTH = (
    0.25  # of the margin: what half an interval must come below where the estimate lies near the margin
)
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

    What is compared are the routes' minima between their cells. Differences are of costs, lower is better: below
    0 means that α is better, whichever way the metric goes.

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
        difference: (α route - η route) as a share: of the loss where ratios of the metric mean something, else
            of its range over the sweep. None where there is nothing to take a share of.
        low: Lower end of its 95 % interval.
        high: Upper end.
        margin: A share that does not matter.
        num_seeds: Seeds that both routes have.
        verdict: ``equivalent``: the 90 % interval lies within ± margin (two one-sided tests at 5 %).
            ``alpha_better``, ``lr_better``: the difference exceeds the margin, and its interval at 98 % for
            all comparisons of the sweep together is clear of 0. ``undecided``: comparable, but see ``limits``.
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
    gap_by_seed: dict[int, float] | None = None
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


@dataclass(frozen=True)
class _Compared:
    """Minima of a pair, what separates them seed by seed, and seed by seed where positions match."""

    pair: _Pair
    alpha: Minimum
    lr: Minimum
    by_seed: dict[int, float]
    matched: dict[int, float] | None

    @property
    def correction(self) -> tuple[float, float]:
        """How far the α route's cells lie farther above their minimum than the η route's, and its error."""
        draws = self.alpha.excess - self.lr.excess if self._both else self.alpha.excess * 0
        low, middle, high = np.quantile(draws, [1 - HALF_RANGE, 0.5, HALF_RANGE])
        return float(middle), float(high - low) / 2

    @property
    def _both(self) -> bool:
        return len(self.alpha.excess) == len(self.lr.excess)


def compare_routes(cells: Sequence[Cell], *, margin: float = MARGIN) -> list[Equivalence]:
    """One comparison for each method, rank and lr ratio that has a grid of α and η.

    The base point is the smallest α and the smallest η that were tried; both routes start there. Full fine-tuning
    and methods whose α follows from the rank have no such question.

    Source: Schuirmann 1987 for the two one-sided tests; Bonferroni for several ranks.
    """
    groups: dict[tuple[str, int, float], list[Cell]] = {}
    for cell in cells:
        if cell.rank is not None and cell.alpha is not None and _chooses_alpha(cell.method):
            groups.setdefault((cell.method, cell.rank, cell.lr_ratio), []).append(cell)
    pairs = {key: _pair(group) for key, group in sorted(groups.items())}
    compared: dict[tuple[str, int, float], _Compared] = {}
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
        found.append(_judge(key, compared[key], others, measure, margin=margin, tail=tail))
    return found


def overall_verdict(items: Sequence[Equivalence]) -> tuple[Verdict, list[str]]:
    """The verdict of all ranks together, and its conditions.

    Ranks that decide differently are ``mixed``. Where they do not, those that no edge, cliff or lack of seeds
    keeps open are averaged, if they scatter no more than their errors say (5 %), and the average is judged
    as one rank is.
    """
    compared = [item for item in items if item.verdict != "not_enough_data"]
    if not compared:
        return "not_enough_data", [] if items else ["no cell of this sweep has a rank and an α to choose"]
    each = "; ".join(f"{_name(item, items)}: {SAID[item.verdict]}" for item in items)
    verdicts = {item.verdict for item in compared}
    decided = verdicts - {"undecided"}
    reasons = [each] if len(items) > 1 else []
    if len(decided) > 1:
        return "mixed", reasons
    if len(verdicts) == 1 and decided:
        return decided.pop(), reasons if len(compared) < len(items) else []
    clear = [item for item in compared if set(item.limits) <= {"width"}]
    average = _average(clear)
    if average is None or len(clear) < 2 or (decided and average not in decided):
        return "undecided", reasons
    return average, [*reasons, f"decided by the average of {len(clear)} comparisons"]


def _average(items: Sequence[Equivalence]) -> Verdict | None:
    """What the mean of comparisons says, each in units of its margin; None where they disagree or are open."""
    gaps, errors = [], []
    for item in items:
        if item.gap is None or item.error is None or not item.tolerance:
            return None
        gaps.append(item.gap / item.tolerance)
        errors.append(item.error / item.tolerance)
    if not gaps:
        return None
    freedom = sum(item.freedom or 0.0 for item in items)
    error = float(np.linalg.norm(errors)) / len(gaps)
    if error and _disagree(np.array(gaps), np.array(errors)):
        return None
    verdict = _verdict(Difference(float(np.mean(gaps)), error, freedom), 1.0, WINNER_TAIL)
    return None if verdict == "undecided" else verdict


def _disagree(
    gaps: np.ndarray[tuple[int], np.dtype[np.float64]], errors: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> bool:
    """Cochran's Q at 5 %."""
    from scipy.special import chdtrc

    if not errors.all():
        return bool(np.ptp(gaps) > 0)
    weights = 1 / errors**2
    middle = float((weights * gaps).sum() / weights.sum())
    return bool(chdtrc(len(gaps) - 1, float((weights * (gaps - middle) ** 2).sum())) < 0.05)


def _name(item: Equivalence, items: Sequence[Equivalence]) -> str:
    parts = [item.method] if len({other.method for other in items}) > 1 else []
    parts.append(f"rank {item.rank}")
    if len({other.lr_ratio for other in items}) > 1:
        parts.append(f"lr ratio {item.lr_ratio:g}")
    return " ".join(parts)


def _chooses_alpha(method: str) -> bool:
    return method not in METHODS or (METHODS[method].uses_rank and not METHODS[method].alpha_from_rule)


def _pair(cells: Sequence[Cell]) -> _Pair:
    tried = [cell for cell in cells if cell.measured or cell.num_diverged] or list(cells)
    base_alpha = min(cell.alpha for cell in tried if cell.alpha is not None)
    base_lr = min(cell.lr for cell in tried)
    return _Pair(
        cells=tuple(cells),
        alpha=take_route([c for c in cells if c.lr == base_lr], "alpha", base=base_alpha),
        lr=take_route([c for c in cells if c.alpha == base_alpha], "lr", base=base_lr),
        base_alpha=base_alpha,
        base_lr=base_lr,
    )


def _compare(pairs: dict[tuple[str, int, float], _Pair]) -> dict[tuple[str, int, float], _Compared]:
    """The minima of pairs that share their method and lr ratio: all their curves are one surface."""
    minima = find_minima([route for pair in pairs.values() for route in (pair.alpha, pair.lr)])
    found = {}
    for place, (key, pair) in enumerate(pairs.items()):
        by_alpha, by_lr = minima[2 * place], minima[2 * place + 1]
        alike = matched(pair.alpha, pair.lr)
        found[key] = _Compared(
            pair,
            by_alpha,
            by_lr,
            paired_by_seed(by_alpha.by_seed, by_lr.by_seed),
            None if alike is None else paired_by_seed(*alike),
        )
    return found


def _judge(
    key: tuple[str, int, float],
    found: _Compared,
    others: Sequence[_Compared],
    measure: Yardstick,
    *,
    margin: float,
    tail: float,
) -> Equivalence:
    by_alpha, by_lr = found.alpha.cell, found.lr.cell
    assert by_alpha.mean is not None
    assert by_lr.mean is not None
    level = (abs(by_alpha.mean) + abs(by_lr.mean)) / 2
    tolerance = measure.tolerance(margin, level=level)
    difference = _difference(found, others)
    limits = _limits(found)
    verdict: Verdict = "undecided"
    if not limits and difference is not None:
        verdict = _verdict(difference, tolerance, tail)
        if verdict in {"alpha_better", "lr_better"} and not _confirmed(found, others, verdict, tail):
            verdict, limits = "undecided", ("spacing",)
        elif verdict == "undecided":
            limits = ("cliff",) if difference.fall_low or difference.fall_high else ("width",)
    item = Equivalence(
        **_facts(key, found.pair, margin),
        difference=None,
        low=None,
        high=None,
        num_seeds=len(found.by_seed),
        verdict=verdict,
        reason="",
        tolerance=tolerance,
        limits=limits,
    )
    if difference is not None:
        low, high = difference.interval()
        item = replace(
            item,
            difference=measure.share(difference.mean, level=level),
            low=measure.share(low, level=level) if math.isfinite(low) else None,
            high=measure.share(high, level=level) if math.isfinite(high) else None,
            gap=difference.mean,
            gap_low=low if math.isfinite(low) else None,
            gap_high=high if math.isfinite(high) else None,
            error=difference.error,
            freedom=difference.freedom,
            gap_by_seed={seed: gap - found.correction[0] for seed, gap in found.by_seed.items()},
        )
    wanted, remark = _deciding(found, limits, difference, tolerance, tail)
    return replace(item, deciding_cells=tuple(wanted), reason=_sentence(item, found, measure) + remark)


def _difference(found: _Compared, others: Sequence[_Compared]) -> Difference | None:
    """The minima's difference: of the cells around them seed by seed, less what these lie above the minima."""
    if len(found.by_seed) < 2:
        return None
    rest = [list(other.by_seed.values()) for other in others]
    paired = paired_difference(list(found.by_seed.values()), rest)
    middle, error = found.correction
    total = math.hypot(paired.error, error)
    # Welch and Satterthwaite: degrees of freedom of a sum of two variances.
    shares = paired.error**4 / paired.freedom + error**4 / EXCESS_FREEDOM
    freedom = total**4 / shares if shares else paired.freedom
    return Difference(paired.mean - middle, total, freedom, found.alpha.fall, found.lr.fall)


def _limits(found: _Compared) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    if len(found.by_seed) < MIN_SEEDS:
        limits.append("seeds")
    if found.alpha.cell is found.lr.cell:
        limits.append("same_cell")
    ends = [found.alpha.end, found.lr.end]
    limits += [end for end in ("low_edge", "high_edge") if end in ends]
    return tuple(limits)


def _verdict(difference: Difference, tolerance: float, tail: float) -> Verdict:
    if difference.within(tolerance) or (difference.mean == difference.error == 0 == tolerance):
        return "equivalent"
    if abs(difference.mean) <= tolerance:
        return "undecided"
    sign = difference.sign(tail=tail)
    return {-1: "alpha_better", 0: "undecided", 1: "lr_better"}[sign]  # type: ignore[return-value]


def _confirmed(found: _Compared, others: Sequence[_Compared], verdict: Verdict, tail: float) -> bool:
    """Whether cells at equal products α·η say the same; without such cells, whether both grids are fine."""
    if found.matched is None:
        return max(found.alpha.gap, found.lr.gap) <= SPACING
    if len(found.matched) < 2:
        return False
    rest = [list(other.matched.values()) for other in others if other.matched]
    sign = paired_difference(list(found.matched.values()), rest).sign(tail=tail)
    return sign == (-1 if verdict == "alpha_better" else 1)


def _deciding(
    found: _Compared,
    limits: Sequence[Limit],
    difference: Difference | None,
    tolerance: float,
    tail: float,
) -> tuple[list[DecidingCell], str]:
    """The runs that would lift ``limits``, and what is to be said of them."""
    if not limits:
        return [], ""
    pair = found.pair
    plan = Plan(found.alpha, found.lr, pair.base_alpha, pair.base_lr)
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
            return (
                [],
                f"; hopeless at this margin: {MOST_SEEDS} seeds would not make the interval narrow enough",
            )
        points |= plan.around()
        if found.correction[1] > difference.error / 2:
            points |= plan.halved()
        num_seeds = more
    routes = [*pair.alpha.cells, *pair.lr.cells]
    seeds = {seed for cell in routes for seed in cell.losses}
    wanted = to_run(points, pair.cells, seeds=seeds, num_seeds=num_seeds)
    num_runs = sum(len(cell.seeds) for cell in wanted)
    return wanted, f"; {num_runs} runs would decide" if num_runs else ""


def _facts(key: tuple[str, int, float], pair: _Pair, margin: float) -> dict[str, Any]:
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


def _incomparable(key: tuple[str, int, float], pair: _Pair, margin: float) -> Equivalence:
    return Equivalence(
        **_facts(key, pair, margin),
        difference=None,
        low=None,
        high=None,
        num_seeds=0,
        verdict="not_enough_data",
        reason=pair.missing,
    )


def _sentence(item: Equivalence, found: _Compared, measure: Yardstick) -> str:
    """The figures, why it is open, and under which conditions all this holds."""
    parts = [_figures(item, measure), *(_LIMITS[limit](item, found) for limit in item.limits)]
    alphas, lrs = found.pair.alpha.cells, found.pair.lr.cells
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


def _edge(end: str) -> Callable[[Equivalence, _Compared], str]:
    which, do = ("smallest", "sweep smaller values") if end == "low_edge" else ("largest", "extend the grid")

    def text(_: Equivalence, found: _Compared) -> str:
        at = " and ".join(name for name, side in (("α", found.alpha), ("η", found.lr)) if side.end == end)
        return f"the {which} {at} measured is the best or may be short of it: {do}"

    return text


_LIMITS: dict[Limit, Callable[[Equivalence, _Compared], str]] = {
    "seeds": lambda item, _: f"{item.num_seeds} seeds in common: at least {MIN_SEEDS} are needed",
    "same_cell": lambda *_: "both routes are best where they start: there is nothing to raise",
    "low_edge": _edge("low_edge"),
    "high_edge": _edge("high_edge"),
    "cliff": lambda *_: (
        "the cells next to a best one diverged, and how low the route gets before that is open"
    ),
    "spacing": lambda *_: (
        "cells at equal α·η do not show this difference: it may come from the grids' spacing"
    ),
    "width": lambda item, _: f"neither within ±{item.margin:.0%} nor clear of it",
}
