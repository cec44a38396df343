"""/sweeps: plan, create, list, read, change, steer, extend, analyse."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import ValidationError

from backend.problems import all_problems
from backend.routes.deps import BackendDep, Bound, Cursor, Limit, ReadingDep, SweepStates
from backend.services import analysis, steering, sweeps
from backend.services.sweep_metrics import list_sweep_metrics
from lora_alpha.request import SweepRequest
from lora_alpha.wire.analysis import (
    MARGIN,
    BoundedOptima,
    Cells,
    Collapse,
    Equivalences,
    Laws,
    Schedules,
    SweepMetrics,
    Target,
)
from lora_alpha.wire.sweeps import ExtendRequest, FieldError, Page, Sweep, SweepPatch, SweepPlan

router = APIRouter(prefix="/sweeps", tags=["sweeps"])

# One message wakes one worker, which then drains the queue; the reconciler rings for whoever is missed.
MAX_RINGS = 8

# A form that is being typed into is invalid most of the time: the plan answers 200 with the problems.
AnyBody = Annotated[dict[str, Any], Body(description="A sweep request; problems come back in `errors`.")]
Key = Annotated[
    str | None, Header(max_length=200, description="Makes the request repeatable: the same key, one sweep.")
]


@router.post("/plan")
def plan(body: AnyBody, backend: BackendDep) -> SweepPlan:
    """Run count, packs and time of a request, or everything that is wrong with it."""
    try:
        request = SweepRequest.model_validate(body)
    except ValidationError as error:
        problems = all_problems(body, error)
        return SweepPlan(
            valid=False,
            errors=[FieldError(field=problem.field, message=problem.message) for problem in problems],
        )
    return sweeps.plan(backend.store, backend.settings, request, now=time.time())


@router.post("", status_code=201)
def create(
    request: SweepRequest, backend: BackendDep, response: Response, idempotency_key: Key = None
) -> Sweep:
    """Queue a sweep."""
    sweep = sweeps.create(backend.store, backend.settings, request, key=idempotency_key, now=time.time())
    response.headers["Location"] = f"/api/sweeps/{sweep.id}"
    backend.ring(MAX_RINGS)
    return sweep


@router.get("")
def listing(
    backend: BackendDep,
    cursor: Cursor = None,
    limit: Limit = 50,
    state: SweepStates = None,
    workload: Annotated[str | None, Query(max_length=200)] = None,
    tag: Annotated[str | None, Query(max_length=64)] = None,
    search: Annotated[str | None, Query(max_length=200, description="Part of the name.")] = None,
) -> Page[Sweep]:
    """Sweeps, newest first."""
    return sweeps.listing(
        backend.store,
        cursor=cursor,
        limit=limit,
        state=state or [],
        workload=workload,
        tag=tag,
        search=search,
        now=time.time(),
    )


@router.get("/{sweep_id}")
def read(sweep_id: str, backend: BackendDep) -> Sweep:
    """One sweep."""
    return sweeps.read(backend.store, sweep_id, now=time.time())


@router.patch("/{sweep_id}")
def patch(sweep_id: str, change: SweepPatch, backend: BackendDep) -> Sweep:
    """Change name, notes, tags."""
    return sweeps.patch(backend.store, sweep_id, change, now=time.time())


@router.delete("/{sweep_id}", status_code=204)
def remove(sweep_id: str, backend: BackendDep) -> None:
    """Delete a sweep that does not run, with all its runs."""
    steering.remove(backend.store, backend.settings, sweep_id)


@router.post("/{sweep_id}/extend", status_code=201)
def extend(sweep_id: str, request: ExtendRequest, backend: BackendDep) -> Sweep:
    """Add cells that the sweep does not have yet."""
    sweep = steering.extend(backend.store, backend.settings, sweep_id, request, now=time.time())
    backend.ring(MAX_RINGS)
    return sweep


@router.get("/{sweep_id}/cells")
def cells(sweep_id: str, backend: BackendDep, reading: ReadingDep) -> Cells:
    """Seeds taken together, cell by cell."""
    return analysis.cells(backend.store, sweep_id, reading)


@router.get("/{sweep_id}/law")
def law(sweep_id: str, backend: BackendDep, reading: ReadingDep, target: Target = "alpha") -> Laws:
    """The best α (or lr) of every rank and the law through them."""
    return analysis.law(backend.store, sweep_id, reading, target=target)


@router.get("/{sweep_id}/metrics")
def metrics(sweep_id: str, backend: BackendDep) -> SweepMetrics:
    """What α can be chosen by."""
    return list_sweep_metrics(backend.store, sweep_id)


@router.get("/{sweep_id}/bounded")
def bounded(sweep_id: str, backend: BackendDep, reading: ReadingDep, max_forgetting: Bound) -> BoundedOptima:
    """The best measured α whose forgetting stays within a bound."""
    return analysis.bounded(backend.store, sweep_id, reading, max_forgetting=max_forgetting)


@router.get("/{sweep_id}/equivalence")
def equivalence(
    sweep_id: str,
    backend: BackendDep,
    reading: ReadingDep,
    margin: Annotated[float, Query(gt=0, le=1, allow_inf_nan=False)] = MARGIN,
) -> Equivalences:
    """Is raising α as good as raising η?"""
    return analysis.equivalence(backend.store, sweep_id, reading, margin=margin)


@router.get("/{sweep_id}/collapse")
def collapse(sweep_id: str, backend: BackendDep, reading: ReadingDep) -> Collapse:
    """Which coordinate of (α, η, r) decides the loss."""
    return analysis.collapse(backend.store, sweep_id, reading)


@router.get("/{sweep_id}/schedules")
def compare_schedules(
    sweep_id: str,
    backend: BackendDep,
    reading: ReadingDep,
    margin: Annotated[float, Query(gt=0, le=1, allow_inf_nan=False)] = MARGIN,
) -> Schedules:
    """Does any schedule of α beat the best constant α?"""
    return analysis.schedules(backend.store, sweep_id, reading, margin=margin)


def _add_verb(verb: str) -> None:
    @router.post(f"/{{sweep_id}}/{verb}", name=verb, operation_id=f"{verb}_sweep", status_code=201)
    def steer(sweep_id: str, backend: BackendDep) -> Sweep:
        sweep = steering.steer(backend.store, backend.settings, sweep_id, verb, now=time.time())
        if verb in {"resume", "retry"}:
            backend.ring(MAX_RINGS)
        return sweep

    del steer


for _verb in steering.VERBS:
    _add_verb(_verb)
