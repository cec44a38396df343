"""One sweep: its header, and the tabs that show what it measured."""

from __future__ import annotations

import asyncio
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view
from dashboard.components.parts import badge, note, notes
from dashboard.connection import Connect
from dashboard.pages import sweep_equivalence, sweep_law, sweep_notes, sweep_runs, sweep_training
from dashboard.pages.presets import preset_note
from dashboard.pages.sweeps import time_left
from dashboard.views import remember_view
from lora_alpha.errors import LoraAlphaError
from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.sweeps import Sweep

TABS = {
    "convergence": "Convergence",
    "map": "α–η map",
    "law": "Law",
    "equivalence": "α vs η",
    "runs": "Runs",
    "export": "Export",
    "notes": "Notes",
}
DEFAULTS: dict[str, Any] = {
    "tab": "convergence",
    **sweep_training.DEFAULTS,
    **sweep_law.DEFAULTS,
}
ACTIONS = {
    "pause": {"queued", "running"},
    "resume": {"paused", "stopped", "cancelled"},
    "stop": {"queued", "running", "paused"},
    "cancel": {"queued", "running", "paused", "stopping"},
    "retry": {"failed"},
}


def layout(sweep_id: str, search: str | None, connect: Connect) -> Component:
    """The page, its controls as the address says."""
    with connect() as client:
        sweep = client.sweep(sweep_id)
        about = preset_note(client, sweep)
    view = read_view(search, DEFAULTS)
    panels = {
        "convergence": sweep_training.convergence_panel(sweep, view),
        "map": sweep_training.map_panel(sweep, view),
        "law": sweep_law.law_panel(sweep, view),
        "equivalence": sweep_equivalence.equivalence_panel(),
        "runs": sweep_runs.runs_panel(),
        "export": sweep_runs.export_panel(sweep),
        "notes": sweep_notes.notes_panel(sweep),
    }
    tabs = dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab(title, value=name) for name, title in TABS.items()], mb="md"),
            *[dmc.TabsPanel(panel, value=name) for name, panel in panels.items()],
        ],
        id=ids.view("tab"),
        value=view["tab"] if view["tab"] in TABS else "convergence",
        keepMounted=True,
    )
    return html.Div(
        [
            dcc.Store(id=ids.SWEEP_ID, data=sweep_id),
            dcc.Store(id=ids.SWEEP_PULSE),
            dcc.Store(id=ids.SWEEP_VIEW, data=view),
            dcc.Interval(id=ids.SWEEP_TICK, interval=1500),
            html.Div(_header(sweep), id=ids.SWEEP_HEADER),
            html.Div(about, style={"margin": "8px 0"}),
            tabs,
            sweep_runs.log_drawer(),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the header, the address and all tabs."""

    @app.callback(
        Output(ids.SWEEP_HEADER, "children"),
        Output(ids.SWEEP_PULSE, "data"),
        Output(ids.SWEEP_TICK, "interval"),
        Input(ids.SWEEP_TICK, "n_intervals"),
        Input({"type": "action", "verb": ALL}, "n_clicks"),
        State(ids.SWEEP_ID, "data"),
        State(ids.SWEEP_PULSE, "data"),
    )
    async def beat(_: int, clicks: list[int | None], sweep_id: str, pulse: str | None) -> Any:
        pressed = ctx.triggered_id
        verb = pressed["verb"] if isinstance(pressed, dict) and any(clicks) else None
        return await asyncio.to_thread(_beat, connect, sweep_id, pulse, verb)

    remember_view(app, "view", ids.SWEEP_VIEW, DEFAULTS)

    sweep_training.register(app, connect)
    sweep_law.register(app, connect)
    sweep_equivalence.register(app, connect)
    sweep_runs.register(app, connect)
    sweep_notes.register(app, connect)


def _beat(connect: Connect, sweep_id: str, pulse: str | None, verb: str | None) -> Any:
    problem: list[Component] = []
    try:
        with connect() as client:
            if verb is not None:
                try:
                    client.sweep_action(sweep_id, verb)  # type: ignore[arg-type]
                except LoraAlphaError as error:
                    problem = [note("Not done", str(error), colour="red")]
            sweep = client.sweep(sweep_id)
    except LoraAlphaError as error:
        text = f"{error}. This page tries again by itself."
        return note("The service does not answer", text, colour="red"), no_update, 3000
    counts = sweep.counts
    now = f"{sweep.state} {sweep.progress:.5f} {counts.total} {counts.finished} {counts.failed}"
    # A finished sweep can still be extended or retried elsewhere: look again, but seldom.
    interval = 15_000 if sweep.state in ENDED_SWEEPS else 1500
    return [*problem, *_header(sweep)], now if now != pulse else no_update, interval


def _header(sweep: Sweep) -> list[Component]:
    counts = sweep.counts
    bad = [
        f"{count} {name}"
        for name, count in (("diverged", counts.diverged), ("failed", counts.failed), ("lost", counts.lost))
        if count
    ]
    facts = ", ".join([f"{counts.finished} of {counts.total} runs finished", *bad])
    left = time_left(sweep)
    buttons = [
        dmc.Button(verb.capitalize(), id=ids.action(verb), size="xs", variant="default")
        for verb, states in ACTIONS.items()
        if sweep.state in states
    ]
    again = dcc.Link(dmc.Button("Duplicate", size="xs", variant="default"), href=f"/new?from={sweep.id}")
    return [
        dmc.Group(
            [
                dmc.Group([dmc.Title(sweep.name, order=2), badge(sweep.state)], gap="sm"),
                dmc.Group([*buttons, again, *_elsewhere(sweep)], gap="xs"),
            ],
            justify="space-between",
            mb=4,
        ),
        dmc.Text(
            f"{sweep.workload}. {facts}{f'; {left} left' if left else ''}. Metric: {sweep.metric_label}.",
            c="dimmed",
            size="sm",
        ),
        dmc.Progress(value=100 * sweep.progress, size="sm", my="sm", **{"aria-label": "progress"}),
        *notes(sweep.warnings),
    ]


def _elsewhere(sweep: Sweep) -> list[Component]:
    """Links to this sweep on the pages of dynamics and curvature, where there is something to see."""
    shown = {
        "dynamics": sweep.spec.get("train", {}).get("dynamics_every"),
        "curvature": sweep.spec.get("probes"),
    }
    return [
        dcc.Link(
            dmc.Button(page.capitalize(), size="xs", variant="default"), href=f"/{page}?sweep={sweep.id}"
        )
        for page, there in shown.items()
        if there
    ]
