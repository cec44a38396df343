"""Is raising α as good as raising η? Best over η at fixed α against best over α at fixed η."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_alpha.analysis.cells import Cell, best_cell
from lora_alpha.analysis.intervals import MARGIN, PairedDifference, paired_difference, shared_seeds

# "mixed" is a verdict on several ranks that disagree.
Verdict = Literal["equivalent", "alpha_better", "lr_better", "undecided", "mixed", "not_enough_data"]


@dataclass(frozen=True)
class Equivalence:
    """The comparison at one (method, rank), paired by seed.

    ``difference`` is the mean over seeds of (loss by the α route - loss by the η route) / mean loss: negative
    means α is better. ``low``, ``high``: its 95 % interval. The verdict is ``equivalent`` if the 90 %
    interval lies within ± margin (two one-sided tests at 5 %), else better or worse if the 95 % interval
    excludes 0.
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


def compare_routes(cells: Sequence[Cell], *, margin: float = MARGIN) -> list[Equivalence]:
    """One comparison for each method and rank that has a grid of α and η.

    The base point is the smallest α and the smallest η, from which both routes start. Each
    route takes its best cell by the mean over seeds, then the seeds are compared pairwise.

    Source: Schuirmann 1987 for the two one-sided tests.
    """
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        if cell.rank is not None and cell.alpha is not None and cell.lr_ratio == 1.0:
            groups.setdefault((cell.method, cell.rank), []).append(cell)
    return [_compare(method, rank, group, margin) for (method, rank), group in sorted(groups.items())]


def overall_verdict(items: Sequence[Equivalence]) -> tuple[Verdict, list[str]]:
    """The verdict of every rank where they agree, and why there is none."""
    if not items:
        return "not_enough_data", ["no cell of this sweep has a rank and an α"]
    verdicts = sorted({item.verdict for item in items})
    if len(verdicts) == 1:
        return verdicts[0], []
    return "mixed", [f"ranks disagree: {', '.join(verdicts)}"]


def _compare(method: str, rank: int, cells: Sequence[Cell], margin: float) -> Equivalence:
    base_alpha = min(cell.alpha for cell in cells if cell.alpha is not None)
    base_lr = min(cell.lr for cell in cells)
    alpha_route = sorted((c for c in cells if c.lr == base_lr), key=lambda cell: cell.alpha or 0.0)
    lr_route = sorted((c for c in cells if c.alpha == base_alpha), key=lambda cell: cell.lr)
    by_alpha, by_lr = best_cell(alpha_route), best_cell(lr_route)
    seeds = shared_seeds(by_alpha.losses, by_lr.losses) if by_alpha and by_lr else []
    found: PairedDifference | None = None
    verdict: Verdict = "not_enough_data"
    if len(alpha_route) < 2 or len(lr_route) < 2:
        reason = "needs at least two α at the smallest η and two η at the smallest α"
    elif by_alpha is None or by_lr is None:
        reason = "no cell of one of the routes finished without a divergence"
    elif len(seeds) < 2:
        reason = f"{len(seeds)} seed in common: needs at least 2, better 3"
    else:
        found = paired_difference(by_alpha.losses, by_lr.losses, margin=margin)
        verdict = _verdict(found)
        reason = _sentence(verdict, found, margin)
        reason += _edges(by_alpha is alpha_route[-1], by_lr is lr_route[-1])
    return Equivalence(
        method=method,
        rank=rank,
        base_alpha=base_alpha,
        base_lr=base_lr,
        best_alpha=by_alpha.alpha if by_alpha else None,
        best_lr=by_lr.lr if by_lr else None,
        loss_alpha_route=by_alpha.mean if by_alpha else None,
        loss_lr_route=by_lr.mean if by_lr else None,
        diverged_alpha_route=sum(cell.num_diverged for cell in alpha_route),
        diverged_lr_route=sum(cell.num_diverged for cell in lr_route),
        difference=found.mean if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        margin=margin,
        num_seeds=len(seeds),
        verdict=verdict,
        reason=reason,
    )


def _verdict(found: PairedDifference) -> Verdict:
    if found.within_margin:
        return "equivalent"
    if found.high < 0:
        return "alpha_better"
    return "lr_better" if found.low > 0 else "undecided"


def _edges(alpha: bool, lr: bool) -> str:
    """A warning where a route ends before its loss has risen again."""
    if not alpha and not lr:
        return ""
    largest = "α and η measured are" if alpha and lr else "α measured is" if alpha else "η measured is"
    return f"; the largest {largest} the best: extend the grid"


def _sentence(verdict: Verdict, found: PairedDifference, margin: float) -> str:
    interval = f"{found.mean:+.1%} (95 % interval {found.low:+.1%} to {found.high:+.1%})"
    return {
        "equivalent": f"the α route's loss differs by {interval}: within ±{margin:.0%}",
        "alpha_better": f"the α route's loss is lower: {interval}",
        "lr_better": f"the α route's loss is higher: {interval}",
        "undecided": f"{interval}: neither within ±{margin:.0%} nor clear of 0; add seeds",
    }[verdict]
