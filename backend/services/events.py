"""What has changed since a listener last heard: sweeps by state and progress."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from sqlalchemy import or_, select

from backend.services.presenters import show_sweeps
from backend.store.engines import Store
from backend.store.tables import SweepRow
from lora_alpha.spec import ENDED_SWEEPS

INTERVAL_S = 1.0
HEARTBEAT_S = 15.0
# A sweep that has just ended is told of once more, even to a listener who missed its last second.
LINGER_S = 10.0


def live_sweeps(store: Store, *, now: float) -> dict[str, str]:
    """Sweeps that are not over, or only just, as JSON by id."""
    with store.read() as session:
        rows = session.scalars(
            select(SweepRow).where(
                or_(SweepRow.state.not_in(ENDED_SWEEPS), SweepRow.finished > now - LINGER_S)
            )
        ).all()
        shown = show_sweeps(session, rows, now=now)
    fields = {"id", "name", "state", "counts", "progress", "eta_seconds"}
    return {sweep.id: sweep.model_dump_json(include=fields) for sweep in shown}


async def stream_events(store: Store) -> AsyncIterator[str]:
    """Server-sent events: ``sweep`` whenever one changes, a comment when nothing does for a while."""
    told: dict[str, str] = {}
    quiet_since = time.monotonic()
    yield "retry: 2000\n\n"
    while True:
        live = await asyncio.to_thread(live_sweeps, store, now=time.time())
        for sweep_id, body in live.items():
            if _without_eta(told.get(sweep_id)) != _without_eta(body):
                quiet_since = time.monotonic()
                yield f"event: sweep\nid: {sweep_id}\ndata: {body}\n\n"
        told = live
        if time.monotonic() - quiet_since > HEARTBEAT_S:
            quiet_since = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(INTERVAL_S)


def _without_eta(body: str | None) -> object:
    """The time left moves with every look: alone it is no news."""
    if body is None:
        return None
    fields = json.loads(body)
    fields.pop("eta_seconds")
    return fields
