"""/ingest: runs that are trained elsewhere."""

from __future__ import annotations

import time

from fastapi import APIRouter

from backend.routes.deps import BackendDep
from backend.services import ingest
from lora_alpha.wire.jobs import IngestPoints, IngestReceipt, IngestRun
from lora_alpha.wire.sweeps import Run

router = APIRouter(prefix="/ingest", tags=["ingest"])


@router.post("/runs", status_code=201)
def add_run(request: IngestRun, backend: BackendDep) -> Run:
    """Register a run; a repeated key gives the same run back."""
    return ingest.add_run(backend.store, request, now=time.time())


@router.post("/runs/{run_id}/points", status_code=201)
def add_points(run_id: str, request: IngestPoints, backend: BackendDep) -> IngestReceipt:
    """Store points and outcome; what is stored already is left as it is."""
    return ingest.add_points(backend.store, run_id, request, now=time.time())
