"""/export/*.csv."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from backend.export import Asked, check, csv_blocks
from backend.routes.deps import BackendDep, Bound, ReadingDep
from lora_alpha.wire.queries import CsvKind

router = APIRouter(prefix="/export", tags=["export"])


@router.get(
    "/{kind}.csv",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def export(
    kind: CsvKind,
    backend: BackendDep,
    reading: ReadingDep,
    sweep: Annotated[
        str | None, Query(max_length=10_000, description="Sweep ids, separated by commas; all unless given.")
    ] = None,
    max_forgetting: Bound | None = None,
) -> StreamingResponse:
    """Everything, in full precision, as it is read; cells, optima and laws under the reading asked for."""
    ids = None if sweep is None else [part for part in sweep.split(",") if part]
    asked = Asked(ids, reading, max_forgetting)
    check(backend.store, kind, asked)
    return StreamingResponse(
        csv_blocks(backend.store, kind, asked),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{kind}.csv"'},
    )
