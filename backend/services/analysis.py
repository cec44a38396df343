"""From a sweep's runs to cells, laws and verdicts, as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.services.horizon import training_of
from backend.services.outcomes import Reading, SweepRead, read_sweep, said
from backend.services.presenters import spec_warnings
from backend.store.engines import Store
from backend.store.sweeps import INGESTED, find_sweep
from lora_alpha.analysis.bounded import bounded_optima, no_bound_reasons
from lora_alpha.analysis.cells import Cell, constant_alpha
from lora_alpha.analysis.collapse import CollapseFit, CollapseScore
from lora_alpha.analysis.collapse_verdict import find_collapse, overall_collapse
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.law import fit_laws, fit_laws_and_draws, no_law_reasons, nothing_measured
from lora_alpha.analysis.optimum import Target
from lora_alpha.analysis.overall import overall_verdict
from lora_alpha.analysis.recommend import recommend as recommend_alpha
from lora_alpha.analysis.rules import RULES
from lora_alpha.analysis.schedules import compare_schedules, schedules_verdict
from lora_alpha.snippets import Recipe, recipe_of
from lora_alpha.wire.analysis import Advice, BoundedOptima, Cells, Collapse, Equivalences, Laws, Schedules

LATEST = Reading()  # the sweep's own metric at the end


def cells(store: Store, sweep_id: str, reading: Reading) -> Cells:
    """``GET /sweeps/{id}/cells``."""
    with store.read() as session:
        sweep = find_sweep(session, sweep_id)
        read = read_sweep(session, sweep_id, reading)
        warnings = _warnings(sweep.spec, reading)
    return Cells(**_said(sweep_id, reading, read), cells=read.cells, warnings=warnings)


def law(store: Store, sweep_id: str, reading: Reading, *, target: Target = "alpha") -> Laws:
    """``GET /sweeps/{id}/law``: nulls and reasons where no fit is possible."""
    with store.read() as session:
        sweep = find_sweep(session, sweep_id)
        read = read_sweep(session, sweep_id, reading)
        found = read.cells
        warnings = [*_warnings(sweep.spec, reading), *_moving(found)]
        steps = training_of(sweep.spec).steps
    laws = fit_laws(found, target=target)
    return Laws(
        **_said(sweep_id, reading, read),
        laws=laws,
        warnings=warnings,
        reasons=no_law_reasons(found, laws, target=target),
        rules=list(RULES) if target == "alpha" else [],
        steps=steps if reading.at_step is None else reading.at_step,
    )


def equivalence(store: Store, sweep_id: str, reading: Reading, *, margin: float) -> Equivalences:
    """``GET /sweeps/{id}/equivalence``."""
    with store.read() as session:
        read = read_sweep(session, sweep_id, reading)
    found = read.cells
    items = compare_routes(constant_alpha(found), margin=margin)
    verdict, reasons = overall_verdict(items)
    return Equivalences(
        **_said(sweep_id, reading, read),
        margin=margin,
        verdict=verdict,
        items=items,
        reasons=[*reasons, *_moving(found)],
    )


def collapse(store: Store, sweep_id: str, reading: Reading) -> Collapse:
    """``GET /sweeps/{id}/collapse``."""
    with store.read() as session:
        read = read_sweep(session, sweep_id, reading)
    found = read.cells
    pairs = collapses(found)
    items = [score for _, scores in pairs for score in scores]
    fits = [fit for fit, _ in pairs]
    return Collapse(
        **_said(sweep_id, reading, read),
        verdict=overall_collapse(fits),
        items=items,
        reasons=[*([] if items else [nothing_measured(found)]), *_moving(found)],
        fits=fits,
    )


def collapses(found: Sequence[Cell]) -> list[tuple[CollapseFit, list[CollapseScore]]]:
    """The collapse of each method and lr ratio of a sweep's cells."""
    constant = constant_alpha(found)
    methods = sorted({cell.method for cell in constant if cell.rank is not None})
    return [pair for method in methods for pair in find_collapse(constant, method=method)]


def schedules(store: Store, sweep_id: str, reading: Reading, *, margin: float) -> Schedules:
    """``GET /sweeps/{id}/schedules``."""
    with store.read() as session:
        read = read_sweep(session, sweep_id, reading)
    found = read.cells
    items = compare_schedules(found, margin=margin)
    return Schedules(
        **_said(sweep_id, reading, read),
        margin=margin,
        verdict=schedules_verdict(items),
        num_pending=sum(cell.num_pending for cell in found),
        items=items,
    )


def bounded(store: Store, sweep_id: str, reading: Reading, *, max_forgetting: float) -> BoundedOptima:
    """``GET /sweeps/{id}/bounded``."""
    with store.read() as session:
        read = read_sweep(session, sweep_id, reading)
    found = read.cells
    reasons = no_bound_reasons(found)
    return BoundedOptima(
        **_said(sweep_id, reading, read),
        max_forgetting=max_forgetting,
        items=[] if reasons else bounded_optima(found, max_forgetting=max_forgetting),
        reasons=[*reasons, *_moving(found)],
    )


def recommend(
    store: Store,
    sweep_id: str,
    *,
    rank: int,
    lr: float | None,
    reading: Reading = LATEST,
    max_forgetting: float | None = None,
) -> Advice:
    """``GET /recommend``; with a bound on forgetting also the best measured α within it.

    Raises:
        FitError: If nothing measured supports an answer.
    """
    with store.read() as session:
        recipe = sweep_recipe(find_sweep(session, sweep_id).spec)
        read = read_sweep(session, sweep_id, reading)
    found = constant_alpha(read.cells)
    laws, draws = fit_laws_and_draws(found)
    answer = recommend_alpha(laws, found, rank=rank, lr=lr, recipe=recipe, draws=draws)
    notes, within = list(read.notes), None
    if max_forgetting is not None:
        items = bounded_optima(found, max_forgetting=max_forgetting)
        wanted = (answer.method, rank, answer.lr)
        within = next((item for item in items if (item.method, item.rank, item.lr) == wanted), None)
        if within is None:
            notes.append(f"Of rank {rank} at lr {answer.lr:g} no α was measured: its forgetting is unknown.")
    said = _said(sweep_id, reading, read) | {"notes": tuple(notes)}
    return Advice(**vars(answer) | said, bounded=within)


def _said(sweep_id: str, reading: Reading, read: SweepRead) -> dict[str, Any]:
    """How the runs were read: the fields that every answer has."""
    return said(sweep_id, reading, metric=read.metric, notes=read.notes)


def sweep_recipe(spec: Mapping[str, Any]) -> Recipe:
    """What a sweep with this specification trained, as far as a trainer's configuration says it."""
    return recipe_of(None if spec.get("source") == INGESTED else spec["train"])


def _warnings(spec: dict[str, Any], reading: Reading) -> list[str]:
    warnings = spec_warnings(spec)
    if reading.at_step is not None and training_of(spec).decaying(reading.at_step):
        warnings.append(
            f"Read at step {reading.at_step} of a decaying schedule: "
            f"that is not a run of {reading.at_step} steps."
        )
    return warnings


def _moving(found: Sequence[Cell]) -> list[str]:
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
