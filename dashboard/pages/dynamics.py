"""Signal, drift and purity of a sweep: over steps, along α×k and η×k, by layer, and under schedules of α."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view, write_view
from dashboard.components.parts import badge, card, note, nothing_here, select
from dashboard.connection import Connect
from dashboard.pages import dynamics_layers, dynamics_routes, dynamics_schedules, dynamics_steps
from dashboard.views import remember_view
from lora_alpha.errors import LoraAlphaError
from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

TABS = {
    "steps": "Over steps",
    "routes": "α×k beside η×k",
    "layers": "Layers",
    "schedules": "α over time",
}
DEFAULTS: dict[str, Any] = {
    "sweep": "",
    "tab": "steps",
    **dynamics_steps.DEFAULTS,
    **dynamics_routes.DEFAULTS,
    **dynamics_layers.DEFAULTS,
    **dynamics_schedules.DEFAULTS,
}


def layout(search: str | None, connect: Connect) -> Component:
    """The page, its sweep and controls as the address says; the newest sweep with dynamics otherwise."""
    view = read_view(search, DEFAULTS)
    with connect() as client:
        found = client.sweeps(limit=200).items
        if not found:
            text = "Signal, drift and purity appear here once a sweep trains."
            return nothing_here("No dynamics yet", text, "/new", "New sweep")
        chosen = client.sweep(view["sweep"]) if view["sweep"] else _newest(found)
        if chosen.id not in {sweep.id for sweep in found}:
            found = [chosen, *found]
        body = _body(client, chosen, view)
    data = [{"value": sweep.id, "label": f"{sweep.name} ({sweep.workload})"} for sweep in found]
    return html.Div(
        [
            dcc.Store(id=ids.DYNAMICS_VIEW, data={**view, "sweep": chosen.id}),
            dcc.Store(id=ids.DYNAMICS_PULSE),
            dcc.Interval(id=ids.DYNAMICS_TICK, interval=3000),
            dmc.Group(
                [
                    dmc.Title("Dynamics", order=2),
                    select(ids.DYNAMICS_SWEEP, "Sweep", chosen.id, data, searchable=True, miw=380),
                ],
                justify="space-between",
                align="flex-end",
                mb="md",
            ),
            html.Div(body, id=ids.DYNAMICS_BODY),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the page and its tabs."""

    @app.callback(
        Output(ids.DYNAMICS_BODY, "children"),
        Output(ids.DYNAMICS_VIEW, "data", allow_duplicate=True),
        Output(ids.URL, "search", allow_duplicate=True),
        Input(ids.DYNAMICS_SWEEP, "value"),
        State(ids.DYNAMICS_VIEW, "data"),
        prevent_initial_call=True,
    )
    async def change_sweep(sweep_id: str, view: dict[str, Any]) -> Any:
        if not sweep_id or sweep_id == view["sweep"]:
            return no_update, no_update, no_update
        return await asyncio.to_thread(_change_sweep, connect, sweep_id, view)

    remember_view(app, "dynamics", ids.DYNAMICS_VIEW, DEFAULTS)

    @app.callback(
        Output(ids.DYNAMICS_PULSE, "data"),
        Output(ids.DYNAMICS_TICK, "interval"),
        Output(ids.DYNAMICS_STATE, "children"),
        Input(ids.DYNAMICS_TICK, "n_intervals"),
        State(ids.DYNAMICS_VIEW, "data"),
        State(ids.DYNAMICS_PULSE, "data"),
    )
    async def beat(_: int, view: dict[str, Any], pulse: str | None) -> Any:
        return await asyncio.to_thread(_beat, connect, view["sweep"], pulse)

    for tab in (dynamics_steps, dynamics_routes, dynamics_layers, dynamics_schedules):
        tab.register(app, connect)


def _newest(found: list[Sweep]) -> Sweep:
    recorded = [sweep for sweep in found if sweep.spec.get("train", {}).get("dynamics_every")]
    return (recorded or found)[0]


def _change_sweep(connect: Connect, sweep_id: str, view: Mapping[str, Any]) -> Any:
    # What belongs to the old sweep's grid goes; how it is looked at stays.
    kept = ("tab", "metric", "seeds", "axis", "k_metric", "strip_metric")
    new = {**DEFAULTS, **{name: view[name] for name in kept}, "sweep": sweep_id}
    try:
        with connect() as client:
            body = _body(client, client.sweep(sweep_id), new)
    except LoraAlphaError as error:
        body = [note("This sweep cannot be shown", str(error), colour="red")]
    return body, new, write_view(new, DEFAULTS)


def _beat(connect: Connect, sweep_id: str, pulse: str | None) -> Any:
    try:
        with connect() as client:
            sweep = client.sweep(sweep_id)
    except LoraAlphaError as error:
        return no_update, 5000, note("The service does not answer", str(error), colour="red")
    now = f"{sweep_id} {sweep.state} {sweep.progress:.4f} {sweep.counts.total}"
    interval = 30_000 if sweep.state in ENDED_SWEEPS else 3000
    return (now if now != pulse else no_update), interval, _state(sweep)


def _body(client: Client, sweep: Sweep, view: Mapping[str, Any]) -> list[Component]:
    every = sweep.spec.get("train", {}).get("dynamics_every")
    head = html.Div(_state(sweep), id=ids.DYNAMICS_STATE)
    warning: list[Component] = []
    if not every:
        text = [
            "This sweep was trained with signal-drift recording off. ",
            dcc.Link("Duplicate it", href=f"/new?from={sweep.id}"),
            " and set “Signal-drift every” to 10 or 50 steps. Losses and schedules are shown below.",
        ]
        warning = [note("No signal and drift in this sweep", text)]
    panels = {
        "steps": dynamics_steps.panel(sweep, view),
        "routes": dynamics_routes.panel(client, sweep, view),
        "layers": dynamics_layers.panel(client, sweep, view),
        "schedules": dynamics_schedules.panel(),
    }
    tabs = dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab(title, value=name) for name, title in TABS.items()], mb="md"),
            *[dmc.TabsPanel(card(panel), value=name) for name, panel in panels.items()],
        ],
        id=ids.dynamics("tab"),
        value=view["tab"] if view["tab"] in TABS else "steps",
        keepMounted=True,
    )
    return [head, *warning, tabs]


def _state(sweep: Sweep) -> Component:
    counts = sweep.counts
    bad = [f"{n} {name}" for name, n in (("diverged", counts.diverged), ("failed", counts.failed)) if n]
    every = sweep.spec.get("train", {}).get("dynamics_every")
    recorded = f"; signal and drift every {every} steps" if every else ""
    facts = ", ".join([f"{counts.finished} of {counts.total} runs finished", *bad])
    return dmc.Group(
        [badge(sweep.state), dmc.Text(facts + recorded, size="sm", c="dimmed")], gap="xs", mb="sm"
    )
