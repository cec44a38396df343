"""What common rules and rival predictions cost on the cells that were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.optimum import Optimum


@dataclass(frozen=True)
class Rule:
    """A common rule for α: coefficient · rank^exponent.

    >>> Rule("α = 2r", 2.0, 1.0).alpha(8)
    16.0
    """

    name: str
    coefficient: float
    exponent: float

    def alpha(self, rank: float) -> float:
        """The α that the rule asks for at ``rank``."""
        return float(self.coefficient * float(rank) ** self.exponent)


@dataclass(frozen=True)
class Rival:
    """A published exponent of α in r at fixed η, in the α/r convention."""

    name: str
    exponent: float
    source: str


RULES = (
    Rule("α = r", 1.0, 1.0),
    Rule("α = 2r", 2.0, 1.0),
    Rule("α = 32", 32.0, 0.0),
    Rule("α = 256√r", 256.0, 0.5),
)
RIVALS = (
    Rival("√r (LoRA-α, rsLoRA)", 0.5, "2606.12883; 2312.03732"),
    Rival("constant α (μA)", 0.0, "2602.06204: η*²·s·r constant"),
    Rival("α ∝ r (constant scale)", 1.0, "the α = r and α = 2r habit"),
)


@dataclass(frozen=True)
class RuleCost:
    """A rule at one rank: the α it asks for and what it costs against the best measured α.

    ``cost`` is loss / best loss - 1; None if that α was not measured (never interpolated) or diverged, or if
    the best loss is 0 (a reward fully earned) and this one is not.
    """

    rule: str
    rank: int
    alpha: float
    measured: bool
    diverged: bool
    loss: float | None
    best_loss: float
    cost: float | None


@dataclass(frozen=True)
class RivalScore:
    """A prediction of the exponent alone: calibrated at ``calibrated_at``, judged on the other ranks.

    ``octaves`` is the mean |log₂(predicted / optimum)|, ``in_basin`` how many predictions lie in the basin.
    """

    name: str
    exponent: float
    source: str
    calibrated_at: int
    octaves: float
    in_basin: int
    num_judged: int


def rule_costs(cells: Sequence[Cell], *, method: str, lr: float, lr_ratio: float = 1.0) -> list[RuleCost]:
    """Every rule at every rank of one (method, lr); costs from measured cells alone."""
    curve = [
        cell
        for cell in cells
        if cell.method == method and cell.lr == lr and cell.lr_ratio == lr_ratio and cell.alpha is not None
    ]
    costs = []
    for rank in sorted({cell.rank for cell in curve if cell.rank is not None}):
        here = [cell for cell in curve if cell.rank == rank]
        means = [cell.mean for cell in here if cell.measured and cell.mean is not None]
        if not means:
            continue
        costs += [_cost(rule, rank, here, min(means)) for rule in RULES]
    return costs


def rival_scores(optima: Sequence[Optimum]) -> list[RivalScore]:
    """Score each rival exponent on the optima inside the grid; empty with fewer than three of them."""
    inside = sorted((o for o in optima if not o.censored), key=lambda optimum: optimum.rank)
    if len(inside) < 3:
        return []
    anchor = inside[len(inside) // 2]
    others = [optimum for optimum in inside if optimum is not anchor]
    scores = []
    for rival in RIVALS:
        predicted = [anchor.value * (o.rank / anchor.rank) ** rival.exponent for o in others]
        errors = [abs(math.log2(p / o.value)) for p, o in zip(predicted, others, strict=True)]
        hits = sum(o.basin_low <= p <= o.basin_high for p, o in zip(predicted, others, strict=True))
        scores.append(
            RivalScore(
                name=rival.name,
                exponent=rival.exponent,
                source=rival.source,
                calibrated_at=anchor.rank,
                octaves=float(np.mean(errors)),
                in_basin=hits,
                num_judged=len(others),
            )
        )
    return sorted(scores, key=lambda score: score.octaves)


def _cost(rule: Rule, rank: int, cells: Sequence[Cell], best: float) -> RuleCost:
    alpha = rule.alpha(rank)
    match = next(
        (c for c in cells if c.alpha is not None and math.isclose(c.alpha, alpha, rel_tol=1e-6)), None
    )
    measured = match is not None and (match.mean is not None or match.num_diverged > 0)
    loss = match.mean if match is not None and match.measured else None
    return RuleCost(
        rule=rule.name,
        rank=rank,
        alpha=alpha,
        measured=measured,
        diverged=match is not None and match.num_diverged > 0,
        loss=loss,
        best_loss=best,
        cost=_relative(loss, best),
    )


def _relative(loss: float | None, best: float) -> float | None:
    if loss is None or (best == 0 and loss > 0):
        return None
    return 0.0 if loss == best else loss / best - 1
