"""The Dash application: frame, routing by path, pages."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import dash_mantine_components as dmc
import httpx
from dash import ClientsideFunction, Dash, Input, Output, State, html
from dash.development.base_component import Component
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from dashboard import ids
from dashboard.connection import close_at_shutdown
from dashboard.pages import curvature, dynamics, inspection, laws, new_sweep, presets, sweep, sweeps, workers
from dashboard.pages.shell import shell
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client

INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        <link rel="icon" type="image/svg+xml" href="/assets/favicon.svg">
        {%css%}
    </head>
    <body>
        {%app_entry%}
        <footer>{%config%}{%scripts%}{%renderer%}</footer>
    </body>
</html>"""


def mount_dashboard(
    root: FastAPI, *, api: str, token: str | None = None, transport: httpx.BaseTransport | None = None
) -> Dash:
    """Add the dashboard to ``root``; whatever path the root does not know is the dashboard's.

    Args:
        root: An application whose ``/api`` is already mounted, or that has none.
        api: Address of the service that callbacks talk to.
        token: The service's token.
        transport: Replaces the network, for tests.
    """
    client = Client(api, token=token, transport=transport)
    close_at_shutdown(root, client)
    # Before Dash, whose catch-all would answer this path: the browser's downloads, passed on as they stream.
    root.add_api_route("/download/{kind}.csv", partial(_download, client), response_class=StreamingResponse)
    root.add_api_route("/download/adapter/{run_id}.zip", partial(_adapter, client), response_class=Response)
    app = Dash(
        "dashboard",
        server=root,
        title="lora_alpha",
        update_title=None,
        index_string=INDEX,
        compress=True,
        suppress_callback_exceptions=True,
        assets_folder=str(Path(__file__).parent / "assets"),
    )
    app.layout = shell()
    _register_frame(app, client)
    for page in (sweeps, new_sweep, inspection, presets, sweep, workers, laws, dynamics, curvature):
        page.register(app, client)
    # Dash collects styles and scripts when "/" is first asked for; whoever opens a link to another page first
    # would get it bare.
    app._setup_server()
    return app


def route(path: str | None, search: str | None, client: Client) -> Component:
    """The page at ``path``."""
    parts = [part for part in (path or "/").split("/") if part]
    match parts:
        case []:
            return sweeps.layout()
        case ["new"]:
            return new_sweep.layout(search, client)
        case ["sweep", sweep_id]:
            return sweep.layout(sweep_id, search, client)
        case ["workers"]:
            return workers.layout()
        case ["laws"]:
            return laws.layout(search, client)
        case ["dynamics"]:
            return dynamics.layout(search, client)
        case ["curvature"]:
            return curvature.layout(search, client)
    return dmc.Text(f"There is no page {path}.", py="xl")


def _register_frame(app: Dash, client: Client) -> None:
    @app.callback(Output(ids.CONTENT, "children"), Input(ids.URL, "pathname"), State(ids.URL, "search"))
    async def show(path: str, search: str) -> Any:
        try:
            return await asyncio.to_thread(route, path, search, client)
        except LoraAlphaError as error:
            return dmc.Alert(str(error), title="This page cannot be shown", color="red", variant="light")

    @app.callback(Output(ids.SERVICE_STATE, "children"), Input(ids.SERVICE_TICK, "n_intervals"))
    async def service_state(_: int) -> Any:
        return await asyncio.to_thread(_service_badge, client)

    app.clientside_callback(
        ClientsideFunction("theme", "toggle"),
        Output(ids.THEME, "data"),
        Input(ids.THEME_BUTTON, "n_clicks"),
        State(ids.THEME, "data"),
    )
    app.clientside_callback(
        ClientsideFunction("theme", "apply"),
        Output(ids.PROVIDER, "forceColorScheme"),
        Output(ids.THEME_BUTTON, "children"),
        Input(ids.THEME, "data"),
    )


def _service_badge(client: Client) -> Component:
    try:
        health = client.health()
    except LoraAlphaError:
        return dmc.Badge("service unreachable", color="red", variant="light")
    text = f"{health.num_workers} worker{'s' if health.num_workers != 1 else ''}"
    if health.num_queued_jobs:
        text += f", {health.num_queued_jobs} queued"
    colour = "teal" if health.state == "ok" and health.num_workers else "yellow"
    return html.Span(
        dmc.Badge(text, color=colour, variant="light"), title="; ".join(health.detail) or "everything answers"
    )


def _download(client: Client, kind: str, sweep: str | None = None) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{kind}.csv"'}
    return StreamingResponse(
        client.export_csv(kind, sweep), media_type="text/csv; charset=utf-8", headers=headers
    )


def _adapter(client: Client, run_id: str) -> Response:
    try:
        content = b"".join(client.run_adapter(run_id))
    except LoraAlphaError as error:
        return PlainTextResponse(str(error), status_code=404)
    headers = {"Content-Disposition": f'attachment; filename="adapter-{run_id}.zip"'}
    return Response(content, media_type="application/zip", headers=headers)
