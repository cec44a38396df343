"""A law and everything that a reader needs to judge it: optima, rivals, rules, what it says of √r."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.cells import Cell, constant_alpha
from lora_alpha.analysis.optimum import Optimum, Target, find_optima
from lora_alpha.analysis.power_law import CANDIDATES, LawFit, ModelScore, compare_exponents, fit_power_law
from lora_alpha.analysis.rules import RivalScore, RuleCost, rival_scores, rule_costs

MIN_RANKS = 3
HALF = "p = 1/2"
BAND_POINTS = 49
BAND_BEYOND = 1.4  # the band goes on by this factor beyond the smallest and the largest rank


@dataclass(frozen=True)
class Band:
    """The fitted line at these ranks with its 95 % band, for drawing; empty ends without an interval."""

    rank: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Law:
    """The law of one method at one lr (or α): its fit, the optima under it and what a reader must know.

    ``fit`` uses every optimum (censored ones by their likelihood), ``fit_uncensored`` only those inside the
    grid. Where no fit is possible both are None and ``reasons`` say why. ``rules`` and ``rivals`` are judged
    for target ``alpha`` alone; so is ``verdict``, one sentence on "α* grows as √r".
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

    @property
    def fixed(self) -> float:
        """The lr of the law, or its α for target ``lr``."""
        return self.optima[0].fixed


def fit_laws(cells: Sequence[Cell], *, target: Target = "alpha") -> list[Law]:
    """The laws of a sweep: one for each (method, lr_ratio, lr), or for each α with target ``lr``.

    Cells whose α moves during training are left out.
    """
    cells = constant_alpha(cells)
    return laws_through(find_optima(cells, target=target), cells)


def laws_through(optima: Sequence[Optimum], cells: Sequence[Cell] = ()) -> list[Law]:
    """One law for each (method, lr_ratio, fixed value, target) among ``optima``; see ``fit_law``."""
    groups: dict[tuple[str, float, float, Target], list[Optimum]] = {}
    for optimum in optima:
        key = (optimum.method, optimum.lr_ratio, optimum.fixed, optimum.target)
        groups.setdefault(key, []).append(optimum)
    return [fit_law(group, cells) for _, group in sorted(groups.items())]


def fit_law(optima: Sequence[Optimum], cells: Sequence[Cell] = ()) -> Law:
    """The law through ``optima`` of one method, lr_ratio and lr (or α).

    Args:
        optima: One for each rank.
        cells: What common rules are judged on.

    >>> import dataclasses
    >>> point = Optimum(
    ...     method="lora", rank=1, lr=2e-4, alpha=None, lr_ratio=1, target="alpha", value=1, low=None,
    ...     high=None, scale=1, basin_low=1, basin_high=2, basin_open_low=False, basin_open_high=False,
    ...     basin_octaves=1, loss=1, censored="", bound_low=None, bound_high=None, num_seeds=3,
    ...     num_diverged=0)
    >>> law = fit_law([dataclasses.replace(point, rank=r, value=100 * r**0.5) for r in (1, 4, 16)])
    >>> round(law.fit.exponent, 9), round(law.fit.coefficient, 6)
    (0.5, 100.0)
    """
    ordered = sorted(optima, key=lambda optimum: optimum.rank)
    inside = [optimum for optimum in ordered if not optimum.censored]
    censored = [optimum for optimum in ordered if optimum.censored]
    reasons = _reasons(inside, ordered)
    fit = None if reasons else fit_power_law(inside, censored)
    first = ordered[0]
    by_alpha = first.target == "alpha"
    rules: Sequence[RuleCost] = ()
    if first.lr is not None:
        rules = rule_costs(cells, method=first.method, lr=first.lr, lr_ratio=first.lr_ratio)
    return Law(
        method=first.method,
        lr=first.lr,
        alpha=first.alpha,
        lr_ratio=first.lr_ratio,
        target=first.target,
        fit=fit,
        fit_uncensored=fit_power_law(inside, []) if len(inside) >= MIN_RANKS else None,
        band=_band(fit, ordered) if fit else None,
        optima=tuple(ordered),
        models=compare_exponents(inside, censored) if fit else (),
        rules=tuple(rules),
        rivals=tuple(rival_scores(ordered)) if by_alpha else (),
        num_ranks=len(ordered),
        num_censored=len(censored),
        num_seeds=min(optimum.num_seeds for optimum in ordered),
        num_diverged=sum(optimum.num_diverged for optimum in ordered),
        num_excluded=0 if fit else len(ordered),
        reasons=tuple(reasons),
        verdict=verdict_on_half(fit, reasons) if by_alpha else "",
    )


def verdict_on_half(fit: LawFit | None, reasons: Sequence[str]) -> str:
    """What a fit says of "α* grows as √r", in one sentence."""
    if fit is None:
        return "No law could be fitted: " + "; ".join(reasons)
    sign = f"p = {fit.exponent:.2f}"
    if fit.exponent_low is None or fit.exponent_high is None:
        return f"{sign} without an interval: one seed cannot support or contradict {HALF}."
    bend = ""
    if fit.bends and fit.bend is not None:
        way = "ever faster" if fit.bend > 0 else "ever slower"
        bend = f" But α* grows {way} with rank: no single power law describes these optima."
    interval = f"{sign}, 95 % interval {fit.exponent_low:.2f} to {fit.exponent_high:.2f}"
    within = {name: p for name, p in CANDIDATES.items() if fit.exponent_low <= p <= fit.exponent_high}
    if HALF not in within:
        return f"{interval}: this sweep contradicts {HALF}.{bend}"
    also = " and ".join(name.removeprefix("p = ") for name in within if name != HALF)
    caveat = f"; but it also contains p = {also}: too wide to decide" if also else ""
    return f"{interval}: consistent with √r on this sweep{caveat}.{bend}"


def no_law_reasons(cells: Sequence[Cell], laws: Sequence[Law], *, target: Target) -> list[str]:
    """Why a sweep has no law at all; empty if it has one."""
    if laws:
        return []
    if cells and not constant_alpha(cells):
        return ["α moves during training in every cell: a law is about constant α"]
    if not any(cell.measured for cell in cells):
        return ["no cell of this sweep has finished yet"]
    axis = "α" if target == "alpha" else "η"
    return [f"no rank has three values of {axis} yet: an optimum needs at least three"]


def _reasons(inside: Sequence[Optimum], all_optima: Sequence[Optimum]) -> list[str]:
    reasons = []
    if len(all_optima) < MIN_RANKS:
        reasons.append(f"{len(all_optima)} ranks have an optimum: a law needs at least {MIN_RANKS}")
    if len(inside) < 2:
        reasons.append(
            f"{len(inside)} of {len(all_optima)} optima lie inside the grid: a law needs at least 2. "
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
        low=() if low is None else tuple(low.tolist()),
        high=() if high is None else tuple(high.tolist()),
    )
