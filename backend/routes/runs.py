"""/runs and /curves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import Field
from starlette.background import BackgroundTask

from backend.routes.deps import BackendDep, Cursor, Limit, RunFilters
from backend.services import adapters, runs
from lora_alpha.wire.base import Wire
from lora_alpha.wire.sweeps import Curves, Page, Run

router = APIRouter(tags=["runs"])

MetricNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
    Query(
        max_length=runs.MAX_METRICS,
        description="In place of `metric`: names, repeated; `drift_ratio/*` stands for all that begin so. "
        f"At most {runs.MAX_METRICS} are given.",
    ),
]
ADAPTER_BLOCK = 2**20  # bytes


@router.get("/runs", response_model=Page[Run])
def listing(
    backend: BackendDep,
    filters: RunFilters,
    sort: Annotated[
        str, Query(max_length=101, description="A column or a metric, - before it for descending.")
    ] = "position",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Runs by filter, in any order."""
    return _json(runs.listing(backend.store, filters=filters, sort=sort, cursor=cursor, limit=limit))


@router.get("/runs/{run_id}")
def read(run_id: str, backend: BackendDep) -> Run:
    """One run."""
    return runs.read(backend.store, run_id)


@router.get("/runs/{run_id}/log", response_class=PlainTextResponse)
def log(run_id: str, backend: BackendDep) -> str:
    """How the run went: state, reason, end of the log."""
    return runs.log(backend.store, run_id)


@router.get(
    "/runs/{run_id}/adapter",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
def adapter(run_id: str, backend: BackendDep) -> StreamingResponse:
    """The run's adapter as a zip of a PEFT folder."""
    file = adapters.export(backend.store, backend.settings, run_id)
    return StreamingResponse(
        iter(lambda: file.read(ADAPTER_BLOCK), b""),
        media_type="application/zip",
        headers={"Content-Disposition": 'attachment; filename="adapter.zip"'},
        background=BackgroundTask(file.close),
    )


@router.get("/curves", response_model=Curves)
def curves(
    backend: BackendDep,
    filters: RunFilters,
    metric: Annotated[str, Query(min_length=1, max_length=200)] = "eval_loss",
    points: Annotated[
        int, Query(ge=3, le=runs.MAX_POINTS, description="Most points per curve; the ends are kept.")
    ] = 500,
    group_by: Annotated[
        str, Query(max_length=200, description="run, cell (seeds collapsed), or axes: rank,lr")
    ] = "run",
    from_step: Annotated[int | None, Query(ge=-1, le=2**53, description="Only later points.")] = None,
    metrics: MetricNames = None,
) -> Response:
    """One metric of many runs, or several, downsampled here."""
    return _json(
        runs.curves(
            backend.store,
            filters=filters,
            metric=metric,
            points=points,
            group_by=group_by,
            from_step=from_step,
            metrics=metrics or (),
        )
    )


def _json(body: Wire) -> Response:
    # Megabytes of numbers: pydantic writes them at once, the framework would check and copy them first.
    return Response(body.model_dump_json(), media_type="application/json")
