"""A law and everything that a reader needs to judge it: optima, rivals, rules, what it says of √r."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.cells import Cell, constant_alpha
from lora_alpha.analysis.curves import CurveDraws
from lora_alpha.analysis.optimum import CurveKey, Located, Optimum, Target, curves_of, locate
from lora_alpha.analysis.power_law import CANDIDATES, LawFit, ModelScore, compare_exponents, fit_power_law
from lora_alpha.analysis.rules import RivalScore, RuleCost, rival_scores, rule_costs

LawDraws = dict[CurveKey, dict[int, CurveDraws | None]]  # law → rank → draws of its curve

MIN_RANKS = 3
LOPSIDED = 3.0  # how much steeper one side has to be for a caveat
WIDE_GAP = 1.6  # octaves between cells about the optimum, likewise
HALF = "p = 1/2"
BAND_POINTS = 49
BAND_BEYOND = 1.4  # the band goes on by this factor beyond the smallest and the largest rank


@dataclass(frozen=True)
class Band:
    """The fitted law at these ranks with its 95 % band, for drawing: with its bend where it bends."""

    rank: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Law:
    """The law of one method at one lr (or α): its fit, the optima under it and what a reader must know.

    ``fit`` uses every optimum (those beyond the grid by their likelihood), ``fit_uncensored`` only those
    inside the grid. Where no fit is possible both are None and ``reasons`` say why. ``rules`` and ``rivals``
    are judged for target ``alpha`` alone; so is ``verdict``, one sentence on "α* grows as √r". ``caveats``
    say where the intervals are known to promise too much.
    """

    method: str
    lr: float | None
    alpha: float | None
    lr_ratio: float
    target: Target
    fit: LawFit | None
    fit_uncensored: LawFit | None
    band: Band | None
    optima: tuple[Optimum, ...]
    models: tuple[ModelScore, ...]
    rules: tuple[RuleCost, ...]
    rivals: tuple[RivalScore, ...]
    num_ranks: int
    num_censored: int
    num_seeds: int
    num_diverged: int
    num_excluded: int
    reasons: tuple[str, ...]
    verdict: str
    caveats: tuple[str, ...] = ()

    @property
    def fixed(self) -> float:
        """The lr of the law, or its α for target ``lr``."""
        return self.optima[0].fixed

    @property
    def key(self) -> CurveKey:
        """What tells the law from the others of its sweep and target."""
        return self.method, self.lr_ratio, self.fixed


def fit_laws(cells: Sequence[Cell], *, target: Target = "alpha") -> list[Law]:
    """The laws of a sweep: one for each (method, lr_ratio, lr), or for each α with target ``lr``.

    Cells whose α moves during training are left out.
    """
    return fit_laws_and_draws(cells, target=target)[0]


def fit_laws_and_draws(cells: Sequence[Cell], *, target: Target = "alpha") -> tuple[list[Law], LawDraws]:
    """``fit_laws``, and the draws of the curves that they rest on."""
    cells = constant_alpha(cells)
    groups = {key: locate(curves, target=target) for key, curves in curves_of(cells, target=target).items()}
    groups = {key: located for key, located in groups.items() if located}
    draws = {key: {item.optimum.rank: item.draws for item in located} for key, located in groups.items()}
    return [fit_law(located, cells) for located in groups.values()], draws


def fit_law(located: Sequence[Located], cells: Sequence[Cell] = ()) -> Law:
    """The law through optima of one method, lr_ratio and lr (or α).

    Args:
        located: One for each rank, in their order, as ``locate`` found them together.
        cells: What common rules are judged on.
    """
    optima = [item.optimum for item in located]
    inside = [item for item in located if item.inside]
    reasons = _reasons(len(inside), optima)
    fit = None if reasons else fit_power_law(located)
    first = optima[0]
    by_alpha = first.target == "alpha"
    rules: Sequence[RuleCost] = ()
    if first.lr is not None:
        draws = {item.optimum.rank: item.draws for item in located}
        rules = rule_costs(cells, method=first.method, lr=first.lr, lr_ratio=first.lr_ratio, draws=draws)
    num_seeds = min(optimum.num_seeds for optimum in optima)
    all_inside = len(inside) == len(located)
    return Law(
        method=first.method,
        lr=first.lr,
        alpha=first.alpha,
        lr_ratio=first.lr_ratio,
        target=first.target,
        fit=fit,
        fit_uncensored=fit if all_inside else fit_power_law(inside) if len(inside) >= MIN_RANKS else None,
        band=_band(fit, optima) if fit else None,
        optima=tuple(optima),
        models=compare_exponents(located) if fit else (),
        rules=tuple(rules),
        rivals=tuple(rival_scores(optima)) if by_alpha else (),
        num_ranks=len(optima),
        num_censored=sum(bool(optimum.censored) for optimum in optima),
        num_seeds=num_seeds,
        num_diverged=sum(optimum.num_diverged for optimum in optima),
        num_excluded=0 if fit else len(optima),
        reasons=tuple(reasons),
        verdict=verdict_on_half(fit, reasons, num_seeds=num_seeds) if by_alpha else "",
        caveats=tuple(_caveats(located)),
    )


def _caveats(located: Sequence[Located]) -> list[str]:
    """Where planted sweeps show that the intervals hold the truth less often than in 95 of 100."""
    drawn = [item.draws for item in located if item.draws is not None]
    if not drawn:
        return []
    found = []
    steepness = float(np.median([draws.steepness() for draws in drawn]))
    if max(steepness, 1 / steepness) > LOPSIDED:
        side = "larger" if steepness > 1 else "smaller"
        found.append(
            f"The loss rises {max(steepness, 1 / steepness):.0f} times as fast towards {side} values. If it "
            "turns abruptly, the intervals of the optima hold the truth in about 80 of 100 sweeps only."
        )
    gaps = [draws.gap for draws in drawn]
    if max(gaps) > WIDE_GAP:
        found.append(
            f"The values about the optimum lie {max(gaps):.1f} octaves apart: where it lies between them "
            "rests on what shapes a basin may have. Values an octave apart or less decide it."
        )
    return found


def verdict_on_half(fit: LawFit | None, reasons: Sequence[str], *, num_seeds: int) -> str:
    """What a fit says of "α* grows as √r", in one sentence, with what weakens it."""
    if fit is None:
        return "No law could be fitted: " + "; ".join(reasons)
    digits = 2 if fit.exponent_high - fit.exponent_low >= 0.02 else 3
    low, high = f"{fit.exponent_low:.{digits}f}", f"{fit.exponent_high:.{digits}f}"
    interval = f"p = {fit.exponent:.{digits}f}, 95 % interval {low} to {high}"
    if num_seeds < 2:
        return (
            f"{interval} by the scatter of one seed's losses about their curves: what another seed would "
            f"move is not in it, so that it cannot support or contradict {HALF}."
        )
    if fit.bends and fit.bend is not None:
        way = "ever faster" if fit.bend > 0 else "ever slower"
        return (
            f"α* grows {way} with rank: no single power law describes these optima. "
            f"The straight line through them has {interval}."
        )
    within = {name: p for name, p in CANDIDATES.items() if fit.exponent_low <= p <= fit.exponent_high}
    if HALF not in within:
        return f"{interval}: this sweep contradicts {HALF}."
    also = " and ".join(name for name in within if name != HALF)
    if also:
        return f"{interval}: too wide to decide, it contains {also} as well as {HALF}."
    return f"{interval}: consistent with √r on this sweep."


def nothing_measured(cells: Sequence[Cell]) -> str:
    """Why no cell can be an optimum: to wait for, or to do something about."""
    if any(cell.num_pending for cell in cells) or not cells:
        return "no cell of this sweep has finished yet"
    if any(cell.num_diverged for cell in cells):
        return "every cell of this sweep has a diverged run: lower α or η"
    return "no run of this sweep has a value to choose α by"


def no_law_reasons(cells: Sequence[Cell], laws: Sequence[Law], *, target: Target) -> list[str]:
    """Why a sweep has no law at all; empty if it has one."""
    if laws:
        return []
    if cells and not constant_alpha(cells):
        return ["α moves during training in every cell: a law is about constant α"]
    if not any(cell.measured for cell in cells):
        return [nothing_measured(cells)]
    axis = "α" if target == "alpha" else "η"
    return [f"no rank has three values of {axis} yet: an optimum needs at least three"]


def _reasons(num_inside: int, optima: Sequence[Optimum]) -> list[str]:
    reasons = []
    if len(optima) < MIN_RANKS:
        reasons.append(f"{len(optima)} ranks have an optimum: a law needs at least {MIN_RANKS}")
    if num_inside < min(2, len(optima)) or (num_inside < 2 and len(optima) >= MIN_RANKS):
        reasons.append(
            f"{num_inside} of {len(optima)} optima lie inside the grid: a law needs at least 2. "
            "Extend the α grid beyond its edges"
        )
    return reasons


def _band(fit: LawFit, optima: Sequence[Optimum]) -> Band:
    ranks = [optimum.rank for optimum in optima]
    x = np.geomspace(min(ranks) / BAND_BEYOND, max(ranks) * BAND_BEYOND, BAND_POINTS)
    value, low, high = fit.predict(x.tolist())
    return Band(
        rank=tuple(x.tolist()),
        value=tuple(value.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )
