"""From a sweep's runs to cells, laws and verdicts, as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from backend.services.outcomes import Reading, sweep_cells
from backend.services.presenters import spec_warnings
from backend.store.engines import Store
from backend.store.sweeps import find_sweep
from lora_alpha.analysis.cells import Cell, constant_alpha
from lora_alpha.analysis.collapse import collapse_scores, collapsing_coordinate
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.law import Law, fit_laws, no_law_reasons
from lora_alpha.analysis.optimum import Target
from lora_alpha.analysis.overall import overall_verdict
from lora_alpha.analysis.recommend import recommend as recommend_alpha
from lora_alpha.analysis.rules import RULES
from lora_alpha.analysis.schedules import compare_schedules, schedules_verdict
from lora_alpha.wire.analysis import Advice, Cells, Collapse, Equivalences, Laws, Schedules


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
        cells=found,
        warnings=warnings,
    )


def law(store: Store, sweep_id: str, reading: Reading, *, target: Target = "alpha") -> Laws:
    """``GET /sweeps/{id}/law``: nulls and reasons where no fit is possible."""
    with store.read() as session:
        sweep = find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
        warnings = [*_warnings(sweep.spec, reading), *_moving(found)]
    laws = fit_laws(found, target=target)
    return Laws(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        laws=laws,
        warnings=warnings,
        reasons=no_law_reasons(found, laws, target=target),
        rules=list(RULES) if target == "alpha" else [],
    )


def sweep_laws(session: Session, sweep_id: str, reading: Reading, *, target: Target) -> list[Law]:
    """The laws of a sweep, as ``GET /sweeps/{id}/law`` gives them."""
    return fit_laws(sweep_cells(session, sweep_id, reading), target=target)


def equivalence(store: Store, sweep_id: str, reading: Reading, *, margin: float) -> Equivalences:
    """``GET /sweeps/{id}/equivalence``."""
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
    items = compare_routes(constant_alpha(found), margin=margin)
    verdict, reasons = overall_verdict(items)
    return Equivalences(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        margin=margin,
        verdict=verdict,
        items=items,
        reasons=[*reasons, *_moving(found)],
    )


def collapse(store: Store, sweep_id: str, reading: Reading) -> Collapse:
    """``GET /sweeps/{id}/collapse``."""
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
    constant = constant_alpha(found)
    methods = sorted({cell.method for cell in constant if cell.rank is not None})
    items = [score for method in methods for score in collapse_scores(constant, method=method)]
    return Collapse(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        verdict=collapsing_coordinate(items),
        items=items,
        reasons=[*([] if items else ["no cell of this sweep has finished yet"]), *_moving(found)],
    )


def schedules(store: Store, sweep_id: str, reading: Reading, *, margin: float) -> Schedules:
    """``GET /sweeps/{id}/schedules``."""
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = sweep_cells(session, sweep_id, reading)
    items = compare_schedules(found, margin=margin)
    return Schedules(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        margin=margin,
        verdict=schedules_verdict(items),
        num_pending=sum(cell.num_pending for cell in found),
        items=items,
    )


def recommend(store: Store, sweep_id: str, *, rank: int, lr: float | None) -> Advice:
    """``GET /recommend``.

    Raises:
        FitError: If nothing measured supports an answer.
    """
    with store.read() as session:
        find_sweep(session, sweep_id)
        found = constant_alpha(sweep_cells(session, sweep_id, Reading()))
    answer = recommend_alpha(fit_laws(found), found, rank=rank, lr=lr)
    return Advice(sweep_id=sweep_id, **vars(answer))


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
