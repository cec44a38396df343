"""What common rules and rival predictions cost: on the cells that were measured, and between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.cells import Cell, best_cell
from lora_alpha.analysis.curves import CurveDraws
from lora_alpha.analysis.optimum import Optimum
from lora_alpha.analysis.yardstick import Yardstick, yardstick


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
    """A rule at one rank: the α it asks for, and what it costs.

    Measured, against the best measured α: ``excess`` in the metric's own unit, above 0 where the rule is
    worse, and ``cost``, the same as a share of ``share_of``. None if that α was not measured or diverged.

    Estimated, against the curve's own minimum: ``regret``, its mean and its 95 % interval over draws of the
    curve, in the metric's unit and as a share. None with a ``reason`` outside the measured α.
    """

    rule: str
    rank: int
    alpha: float
    measured: bool
    diverged: bool
    loss: float | None
    best_loss: float
    cost: float | None
    excess: float | None = None
    regret: float | None = None
    regret_low: float | None = None
    regret_high: float | None = None
    regret_share: float | None = None
    regret_share_low: float | None = None
    regret_share_high: float | None = None
    unit: str = ""
    share_of: str = ""
    reason: str = ""


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


def rule_costs(
    cells: Sequence[Cell],
    *,
    method: str,
    lr: float,
    lr_ratio: float = 1.0,
    draws: Mapping[int, CurveDraws | None] | None = None,
) -> list[RuleCost]:
    """Every rule at every rank of one (method, lr).

    Args:
        cells: All of the sweep, for its yardstick.
        method: Fine-tuning method.
        lr: Learning rate.
        lr_ratio: lr_B / lr_A.
        draws: Rank → draws of its curve over log₂ α; without them nothing is estimated.
    """
    yard = yardstick(cells)
    curves: dict[int, list[Cell]] = {}
    for cell in cells:
        here = (cell.method, cell.lr, cell.lr_ratio) == (method, lr, lr_ratio)
        if here and cell.rank is not None and cell.alpha is not None:
            curves.setdefault(cell.rank, []).append(cell)
    costs = []
    for rank, curve in sorted(curves.items()):
        alphas = {rule.name: rule.alpha(rank) for rule in RULES}
        costs += alpha_costs(alphas, rank, curve, (draws or {}).get(rank), yard)
    return costs


def alpha_costs(
    alphas: Mapping[str, float], rank: int, curve: Sequence[Cell], draws: CurveDraws | None, yard: Yardstick
) -> list[RuleCost]:
    """What each named α costs on one curve of cells; nothing while no cell of it is measured."""
    best = best_cell(curve)
    if best is None:
        return []
    return [_cost(name, alpha, rank, curve, best, draws, yard) for name, alpha in alphas.items()]


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


def _cost(
    rule: str,
    alpha: float,
    rank: int,
    curve: Sequence[Cell],
    best: Cell,
    draws: CurveDraws | None,
    yard: Yardstick,
) -> RuleCost:
    match = next(
        (c for c in curve if c.alpha is not None and math.isclose(c.alpha, alpha, rel_tol=1e-6)), None
    )
    assert best.mean is not None
    assert best.cost is not None
    level = best.mean
    found = match.cost if match is not None and match.measured else None
    above = None if found is None else found - best.cost
    reason = _no_estimate(alpha, curve, draws)
    regret: list[float | None] = [None, None, None]
    if draws is not None and not reason:
        found_draws = draws.excess(math.log2(alpha))
        regret = [float(found_draws.mean()), *np.quantile(found_draws, [0.025, 0.975]).tolist()]
    shares = [None if value is None else yard.share(value, level=level) for value in regret]
    return RuleCost(
        rule=rule,
        rank=rank,
        alpha=alpha,
        measured=match is not None and (match.mean is not None or match.num_diverged > 0),
        diverged=match is not None and match.num_diverged > 0,
        loss=match.mean if match is not None and match.measured else None,
        best_loss=level,
        cost=None if above is None else yard.share(above, level=level),
        excess=above,
        regret=regret[0],
        regret_low=regret[1],
        regret_high=regret[2],
        regret_share=shares[0],
        regret_share_low=shares[1],
        regret_share_high=shares[2],
        unit=yard.metric.unit,
        share_of=yard.phrase,
        reason=reason,
    )


def _no_estimate(alpha: float, curve: Sequence[Cell], draws: CurveDraws | None) -> str:
    """Why nothing can be said of the curve at ``alpha``; empty where something can."""
    if draws is None:
        return "too few α measured at this rank"
    measured = sorted(cell.alpha for cell in curve if cell.measured and cell.alpha is not None)
    # The rules' own α are computed: they may miss a grid's end by a rounding.
    if not measured[0] * (1 - 1e-6) <= alpha <= measured[-1] * (1 + 1e-6):
        return f"outside the measured α, {measured[0]:g} to {measured[-1]:g}"
    walls = [c.alpha for c in curve if c.num_diverged and not c.measured and c.alpha is not None]
    wall = next((w for w in walls if math.isclose(w, alpha, rel_tol=1e-6)), None)
    if wall is None and draws.grid[0] <= math.log2(alpha) <= draws.grid[-1]:
        return ""
    return "diverged runs stand between it and the best"
