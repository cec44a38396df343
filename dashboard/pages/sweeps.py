"""The list of sweeps: state, progress, counts, time left."""

from __future__ import annotations

import asyncio
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import badge, note, nothing_here, table
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

STATES = ["all", "queued", "running", "paused", "finished", "stopped", "cancelled", "failed"]
ROWS = 100


def layout() -> Component:
    """The page before its first data."""
    return html.Div(
        [
            dmc.Group(
                [
                    dmc.Title("Sweeps", order=2),
                    dcc.Link(dmc.Button("New sweep"), href="/new"),
                ],
                justify="space-between",
                mb="md",
            ),
            html.Div(
                [
                    dmc.TextInput(
                        id=ids.SWEEPS_SEARCH, label="Name contains", value="", size="xs", debounce=300, w=240
                    ),
                    dmc.Select(
                        id=ids.SWEEPS_STATE,
                        label="State",
                        value="all",
                        data=STATES,
                        size="xs",
                        allowDeselect=False,
                    ),
                ],
                className="controls",
            ),
            html.Div(id=ids.SWEEPS_TABLE),
            html.Div(id=ids.SWEEPS_VIEWS, style={"marginTop": 24}),
            dcc.Interval(id=ids.SWEEPS_TICK, interval=2000),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """The page's callbacks."""

    @app.callback(
        Output(ids.SWEEPS_VIEWS, "children"),
        Input({"type": "forget-view", "name": ALL}, "n_clicks"),
    )
    async def views(clicks: list[int | None]) -> Any:
        pressed = ctx.triggered_id
        forget = pressed["name"] if isinstance(pressed, dict) and any(clicks) else None
        return await asyncio.to_thread(view_list, client, forget)

    @app.callback(
        Output(ids.SWEEPS_TABLE, "children"),
        Input(ids.SWEEPS_TICK, "n_intervals"),
        Input(ids.SWEEPS_SEARCH, "value"),
        Input(ids.SWEEPS_STATE, "value"),
        State(ids.URL, "pathname"),
    )
    async def refresh(_: int, search: str, state: str, __: str) -> Any:
        return await asyncio.to_thread(sweep_table, client, search, state)


def sweep_table(client: Client, search: str, state: str) -> Component:
    """Sweeps that match, newest first."""
    try:
        page = client.sweeps(
            limit=ROWS,
            search=search or None,
            state=None if state == "all" else state,
        )
    except LoraAlphaError as error:
        return note("The service does not answer", f"{error}. This page tries again by itself.", colour="red")
    if not page.items and not search and state == "all":
        return nothing_here(
            "No sweep yet",
            "A sweep trains one task at many values of α, η and r, and fits how the best α grows with rank.",
            "/new",
            "Create the first sweep",
        )
    if not page.items:
        return dmc.Text("No sweep matches.", c="dimmed", py="xl")
    more = f"The newest {ROWS} are shown; search to find older ones." if page.next else ""
    return table(
        ["name", "workload", "state", "progress", "runs", "left", "created"],
        [_row(sweep) for sweep in page.items],
        caption=more,
    )


def view_list(client: Client, forget: str | None) -> Any:
    """Saved views, after one of them was forgotten if it is named."""
    try:
        if forget is not None:
            client.delete_view(forget)
        saved = client.views().items
    except LoraAlphaError:
        return []  # the table above says so
    if not saved:
        return []
    rows = [
        dmc.Group(
            [
                dcc.Link(view.name, href=view.address, className="row-link"),
                dmc.Button(
                    "Forget", id=ids.forget_view(view.id), size="compact-xs", variant="subtle", color="gray"
                ),
            ],
            gap="xs",
        )
        for view in saved
    ]
    return [dmc.Title("Saved views", order=4, mb="xs"), *rows]


def _row(sweep: Sweep) -> list[Any]:
    counts = sweep.counts
    runs = f"{counts.finished} / {counts.total}"
    extra = [f"{count} {name}" for name, count in _bad(sweep) if count]
    return [
        dcc.Link(sweep.name, href=f"/sweep/{sweep.id}", className="row-link"),
        sweep.workload,
        badge(sweep.state),
        dmc.Progress(value=100 * sweep.progress, w=140, size="md", **{"aria-label": "progress"}),
        ", ".join([runs, *extra]),
        time_left(sweep),
        sweep.created_at.strftime("%Y-%m-%d %H:%M"),
    ]


def _bad(sweep: Sweep) -> list[tuple[str, int]]:
    counts = sweep.counts
    return [("diverged", counts.diverged), ("failed", counts.failed), ("lost", counts.lost)]


def time_left(sweep: Sweep) -> str:
    """``about 40 s``, or nothing once the sweep has ended."""
    if sweep.eta_seconds is None:
        return ""
    seconds = sweep.eta_seconds
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
