"""From a sweep's runs to cells, laws and verdicts, as the API shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from sqlalchemy.orm import Session

from backend.services.outcomes import Reading, sweep_cells
from backend.services.presenters import spec_warnings
from backend.store.engines import Store
from backend.store.sweeps import find_sweep
from lora_alpha.analysis.cells import CellStats, constant_alpha
from lora_alpha.analysis.collapse import COLLAPSED, collapse_scores
from lora_alpha.analysis.equivalence import Verdict as RouteVerdict
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.optimum import Optimum, Target, find_optima
from lora_alpha.analysis.power_law import Law, LawFit, fit_laws
from lora_alpha.analysis.recommend import recommend as recommend_alpha
from lora_alpha.analysis.rules import rival_scores, rule_costs
from lora_alpha.methods import method_scale
from lora_alpha.wire.analysis import (
    Band,
    Collapse,
    CollapseItem,
    CollapsePointItem,
    EquivalenceItem,
    Equivalences,
    FitItem,
    LawItem,
    Laws,
    ModelItem,
    OptimumItem,
    RecommendationItem,
    RivalItem,
    RuleItem,
    Verdict,
)
from lora_alpha.wire.sweeps import Cell, Cells


def cells(store: Store, sweep_id: str, reading: Reading) -> Cells:
    """``GET /sweeps/{id}/cells``."""
    with store.read() as session:
        sweep = find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
        warnings = _warnings(sweep.spec, reading)
    return Cells(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        cells=[show_cell(cell) for cell in found],
        warnings=warnings,
    )


def law(store: Store, sweep_id: str, reading: Reading, *, target: Target = "alpha") -> Laws:
    """``GET /sweeps/{id}/law``: nulls and reasons where no fit is possible."""
    with store.read() as session:
        sweep = find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
        warnings = [*_warnings(sweep.spec, reading), *_moving(found)]
    laws = _fit(found, target)
    return Laws(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        laws=laws,
        warnings=warnings,
        reasons=_no_law_reasons(found, laws, target),
    )


def sweep_laws(session: Session, sweep_id: str, reading: Reading, *, target: Target) -> list[LawItem]:
    """The laws of a sweep, as ``GET /sweeps/{id}/law`` gives them."""
    return _fit(sweep_cells(session, sweep_id, reading), target)


def _fit(found: Sequence[CellStats], target: Target) -> list[LawItem]:
    found = constant_alpha(found)
    return [show_law(item, found) for item in fit_laws(find_optima(found, target=target))]


def equivalence(store: Store, sweep_id: str, reading: Reading, *, margin: float) -> Equivalences:
    """``GET /sweeps/{id}/equivalence``."""
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
    items = compare_routes(constant_alpha(found), margin=margin)
    verdicts = sorted({item.verdict for item in items})
    return Equivalences(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        margin=margin,
        verdict=_overall(verdicts),
        items=[EquivalenceItem(**asdict(item)) for item in items],
        reasons=[*_equivalence_reasons(verdicts, any_items=bool(items)), *_moving(found)],
    )


def collapse(store: Store, sweep_id: str, reading: Reading) -> Collapse:
    """``GET /sweeps/{id}/collapse``."""
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
    moving = _moving(found)
    found = constant_alpha(found)
    methods = sorted({cell.method for cell in found if cell.rank is not None})
    items = [
        CollapseItem(
            method=method,
            coordinate=score.coordinate,
            score=score.score,
            num_compared=score.num_compared,
            num_alone=score.num_alone,
            points=[CollapsePointItem(**asdict(point)) for point in score.points],
        )
        for method in methods
        for score in collapse_scores(found, method=method)
    ]
    best = max(items, key=lambda item: -math.inf if item.score is None else item.score, default=None)
    good = best is not None and best.score is not None and best.score >= COLLAPSED
    return Collapse(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        verdict=best.coordinate if best is not None and good else "none",
        items=items,
        reasons=[*([] if items else ["no cell of this sweep has finished yet"]), *moving],
    )


def recommend(store: Store, sweep_id: str, *, rank: int, lr: float | None) -> RecommendationItem:
    """``GET /recommend``.

    Raises:
        FitError: If nothing measured supports an answer.
    """
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = constant_alpha(sweep_cells(session, sweep_id, Reading()))
    answer = recommend_alpha(fit_laws(find_optima(found)), found, rank=rank, lr=lr)
    fields = asdict(answer)
    fields.pop("supporting_cells")
    return RecommendationItem(
        sweep_id=sweep_id,
        **fields,
        num_supporting_runs=sum(cell.n for cell in answer.supporting_cells),
        supporting_cells=[show_cell(cell) for cell in answer.supporting_cells],
    )


def show_cell(cell: CellStats) -> Cell:
    """A cell on the wire."""
    return Cell(
        method=cell.method,
        rank=cell.rank,
        alpha=cell.alpha,
        scale=cell.scale,
        lr=cell.lr,
        lr_ratio=cell.lr_ratio,
        n=cell.n,
        mean=cell.mean,
        std=cell.std,
        ci_low=cell.ci_low,
        ci_high=cell.ci_high,
        num_diverged=cell.num_diverged,
        num_failed=cell.num_failed,
        num_pending=cell.num_pending,
        forgetting=cell.forgetting,
        alpha_schedule=cell.alpha_schedule,
    )


def show_optimum(optimum: Optimum) -> OptimumItem:
    """An optimum on the wire."""
    by_alpha = optimum.target == "alpha"
    alpha = None if by_alpha else optimum.fixed
    return OptimumItem(
        method=optimum.method,
        rank=optimum.rank,
        lr=optimum.fixed if by_alpha else None,
        alpha=alpha,
        lr_ratio=optimum.lr_ratio,
        target=optimum.target,
        value=optimum.value,
        low=optimum.low,
        high=optimum.high,
        scale=method_scale(optimum.method, rank=optimum.rank, alpha=optimum.value if by_alpha else alpha),
        basin_low=optimum.basin_low,
        basin_high=optimum.basin_high,
        basin_open_low=optimum.basin_open_low,
        basin_open_high=optimum.basin_open_high,
        basin_octaves=optimum.basin_octaves,
        loss=optimum.loss,
        censored=optimum.censored,
        bound_low=optimum.bound_low,
        bound_high=optimum.bound_high,
        num_seeds=optimum.num_seeds,
        num_diverged=optimum.num_diverged,
    )


def verdict_on_half(fit: LawFit | None, reasons: Sequence[str]) -> str:
    """What this sweep says of "α* grows as √r", in one sentence."""
    if fit is None:
        return "No law could be fitted: " + "; ".join(reasons)
    sign = f"p = {fit.exponent:.2f}"
    if fit.exponent_low is None or fit.exponent_high is None:
        return f"{sign} without an interval: one seed cannot support or contradict p = 1/2."
    bend = ""
    if fit.bends and fit.bend is not None:
        way = "ever faster" if fit.bend > 0 else "ever slower"
        bend = f" But α* grows {way} with rank: no single power law describes these optima."
    interval = f"{sign}, 95 % interval {fit.exponent_low:.2f} to {fit.exponent_high:.2f}"
    if fit.exponent_low <= 0.5 <= fit.exponent_high:
        also = [name for name, p in (("0", 0.0), ("1", 1.0)) if fit.exponent_low <= p <= fit.exponent_high]
        caveat = f"; but it also contains p = {' and '.join(also)}: too wide to decide" if also else ""
        return f"{interval}: consistent with √r on this sweep{caveat}.{bend}"
    return f"{interval}: this sweep contradicts p = 1/2.{bend}"


def show_law(item: Law, found: Sequence[CellStats]) -> LawItem:
    """A law on the wire, with what common rules and rivals cost on the cells ``found``."""
    by_alpha = item.target == "alpha"
    lr = item.fixed if by_alpha else None
    rules = rule_costs(found, method=item.method, lr=item.fixed, lr_ratio=item.lr_ratio) if by_alpha else []
    return LawItem(
        method=item.method,
        lr=lr,
        alpha=None if by_alpha else item.fixed,
        lr_ratio=item.lr_ratio,
        target=item.target,
        fit=_show_fit(item.fit),
        fit_uncensored=_show_fit(item.fit_uncensored),
        band=_band(item),
        optima=[show_optimum(optimum) for optimum in item.optima],
        models=[ModelItem(**asdict(model)) for model in item.models],
        rules=[RuleItem(**asdict(cost)) for cost in rules],
        rivals=[RivalItem(**asdict(score)) for score in rival_scores(item.optima)] if by_alpha else [],
        num_ranks=item.num_ranks,
        num_censored=item.num_censored,
        num_seeds=item.num_seeds,
        num_diverged=item.num_diverged,
        num_excluded=item.num_excluded,
        reasons=list(item.reasons),
        verdict=verdict_on_half(item.fit, item.reasons) if by_alpha else "",
    )


def _show_fit(fit: LawFit | None) -> FitItem | None:
    if fit is None:
        return None
    return FitItem(
        exponent=fit.exponent,
        exponent_low=fit.exponent_low,
        exponent_high=fit.exponent_high,
        coefficient=fit.coefficient,
        coefficient_low=fit.coefficient_low,
        coefficient_high=fit.coefficient_high,
        scatter_octaves=fit.scatter,
        bend=fit.bend,
        bend_low=fit.bend_low,
        bend_high=fit.bend_high,
    )


def _band(item: Law) -> Band | None:
    if item.fit is None:
        return None
    ranks = [optimum.rank for optimum in item.optima]
    x = np.geomspace(min(ranks) / 1.4, max(ranks) * 1.4, 49)
    value, low, high = item.fit.predict(x.tolist())
    return Band(
        rank=x.tolist(),
        value=value.tolist(),
        low=[] if low is None else low.tolist(),
        high=[] if high is None else high.tolist(),
    )


def _overall(verdicts: Sequence[RouteVerdict]) -> Verdict:
    """The verdict of every rank where they agree."""
    if not verdicts:
        return "not_enough_data"
    return verdicts[0] if len(verdicts) == 1 else "mixed"


def _warnings(spec: dict[str, object], reading: Reading) -> list[str]:
    warnings = spec_warnings(spec)
    train = spec.get("train")
    decays = isinstance(train, dict) and train.get("lr_schedule") == "cosine"
    if (
        reading.at_step is not None
        and decays
        and isinstance(train, dict)
        and reading.at_step < train["steps"]
    ):
        warnings.append(
            f"Read at step {reading.at_step} of a decaying schedule: "
            f"that is not a run of {reading.at_step} steps."
        )
    return warnings


def _moving(found: Sequence[CellStats]) -> list[str]:
    """That runs are left out because their α moves, and how many."""
    constant = constant_alpha(found)
    if len(constant) == len(found):
        return []
    left_out = [cell for cell in found if cell not in constant]
    num_runs = sum(cell.n + cell.num_diverged + cell.num_failed + cell.num_pending for cell in left_out)
    return [
        f"{num_runs} runs in {len(left_out)} cells are left out: their α moves during training. "
        "GET /sweeps/{id}/schedules compares them with the best constant α."
    ]


def _no_law_reasons(found: Sequence[CellStats], laws: Sequence[LawItem], target: Target) -> list[str]:
    if laws:
        return []
    if found and not constant_alpha(found):
        return ["α moves during training in every cell: a law is about constant α"]
    if not any(cell.measured for cell in found):
        return ["no cell of this sweep has finished yet"]
    axis = "α" if target == "alpha" else "η"
    return [f"no rank has three values of {axis} yet: an optimum needs at least three"]


def _equivalence_reasons(verdicts: Sequence[str], *, any_items: bool) -> list[str]:
    if not any_items:
        return ["no cell of this sweep has a rank and an α"]
    return [f"ranks disagree: {', '.join(verdicts)}"] if len(verdicts) > 1 else []
