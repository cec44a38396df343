"""Workers and the service's health."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import badge, note, table
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client


def layout() -> Component:
    """The page before its first data."""
    return html.Div(
        [
            dmc.Title("Workers", order=2, mb="md"),
            html.Div(id=ids.WORKERS_TABLE),
            dcc.Interval(id=ids.WORKERS_TICK, interval=2000),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """The page's callback."""

    @app.callback(Output(ids.WORKERS_TABLE, "children"), Input(ids.WORKERS_TICK, "n_intervals"))
    async def refresh(_: int) -> Any:
        return await asyncio.to_thread(worker_table, client)


def worker_table(client: Client) -> Any:
    """Workers and what the service says of itself."""
    try:
        workers, health = client.workers().items, client.health()
    except LoraAlphaError as error:
        return note("The service does not answer", f"{error}. This page tries again by itself.", colour="red")
    now = datetime.now(UTC)
    rows = [
        [
            worker.id,
            worker.host,
            str(worker.pid),
            worker.device + (f" ({worker.gpu_bytes / 2**30:.0f} GiB)" if worker.gpu_bytes else ""),
            worker.queue,
            badge(worker.state),
            worker.job_id or "",
            f"{(now - worker.heartbeat).total_seconds():.0f} s ago",
        ]
        for worker in workers
    ]
    facts = f"{health.num_queued_jobs} jobs queued; database {health.database}, broker {health.broker}"
    parts: list[Component] = [dmc.Text(facts, c="dimmed", mb="sm")]
    parts += [note("Mind", text) for text in health.detail]
    headings = ["id", "host", "pid", "device", "queue", "state", "job", "last sign of life"]
    return [*parts, table(headings, rows) if rows else dmc.Text("No worker has registered yet.", py="lg")]
