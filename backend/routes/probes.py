"""/probes and /inspections: jobs that measure or check, beside training."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query

from backend.routes.deps import BackendDep, Cursor, Limit
from backend.services import curvature, inspections, probes
from lora_alpha.spec import ProbeKind, ProbeSpace, ProbeSpec, RunState
from lora_alpha.wire.analysis import Curvature
from lora_alpha.wire.jobs import Inspection, InspectionRequest, Probe
from lora_alpha.wire.sweeps import Page

router = APIRouter(tags=["probes"])

Id = Annotated[str | None, Query(max_length=100)]


@router.post("/probes", status_code=201)
def create_probe(spec: ProbeSpec, backend: BackendDep) -> Probe:
    """Queue a Hessian probe at a run's weights or at a fresh point."""
    probe = probes.create(backend.store, backend.settings, spec, now=time.time())
    backend.ring()
    return probe


@router.get("/probes")
def list_probes(
    backend: BackendDep,
    sweep: Id = None,
    run: Id = None,
    state: RunState | None = None,
    kind: ProbeKind | None = None,
    space: ProbeSpace | None = None,
    fresh: Annotated[bool, Query(description="Only probes at fresh adapters, of no sweep.")] = False,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[Probe]:
    """Probes, newest first."""
    return probes.listing(
        backend.store,
        sweep=sweep,
        run=run,
        state=state,
        kind=kind,
        space=space,
        fresh=fresh,
        cursor=cursor,
        limit=limit,
    )


@router.get("/probes/{probe_id}")
def read_probe(probe_id: str, backend: BackendDep) -> Probe:
    """One probe, with its result when it has finished."""
    return probes.read(backend.store, probe_id)


@router.post("/probes/{probe_id}/cancel", status_code=201)
def cancel_probe(probe_id: str, backend: BackendDep) -> Probe:
    """Stop a probe."""
    return probes.cancel(backend.store, probe_id, now=time.time())


@router.get("/curvature")
def read_curvature(backend: BackendDep, sweep: Id = None) -> Curvature:
    """Extremes, suppression and best η of a sweep's probes; without a sweep, of probes at fresh points."""
    return curvature.read(backend.store, sweep)


@router.post("/inspections", status_code=201)
def create_inspection(request: InspectionRequest, backend: BackendDep) -> Inspection:
    """Check a workload and its options on a worker, before any run is queued."""
    inspection = inspections.create(backend.store, backend.settings, request, now=time.time())
    backend.ring()
    return inspection


@router.get("/inspections/{inspection_id}")
def read_inspection(inspection_id: str, backend: BackendDep) -> Inspection:
    """One inspection: what was found, or what is wrong."""
    return inspections.read(backend.store, inspection_id)
