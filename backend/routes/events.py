"""/events: server-sent events."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from backend.routes.deps import BackendDep
from backend.services.events import stream_events

router = APIRouter(tags=["events"])


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(backend: BackendDep) -> StreamingResponse:
    """A stream that says ``sweep`` whenever a sweep's state, counts or progress change."""
    return StreamingResponse(
        stream_events(backend.store),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
