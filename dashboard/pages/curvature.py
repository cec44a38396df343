"""Curvature: λ_max and λ_min in LoRA and full-weight coordinates, densities, and the probes behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view, write_view
from dashboard.components.parts import card, note, select
from dashboard.connection import Connect
from dashboard.pages import curvature_plots, probe_form, probe_list
from dashboard.views import remember_view
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

TABS = {
    "extremes": "λ_max and λ_min",
    "suppression": "Suppression",
    "density": "Spectral density",
    "rates": "Best η against 1/λ_max",
    "probes": "Probes",
}
DEFAULTS: dict[str, Any] = {"sweep": "", "tab": "extremes", **curvature_plots.DEFAULTS}
FRESH = "fresh"


def layout(search: str | None, connect: Connect) -> Component:
    """The page as the address says; the newest sweep with probes otherwise."""
    view = read_view(search, DEFAULTS)
    with connect() as client:
        sweeps = client.sweeps(limit=200).items
        if view["sweep"] and view["sweep"] not in {FRESH, *(sweep.id for sweep in sweeps)}:
            sweeps = [client.sweep(view["sweep"]), *sweeps]
        chosen = view["sweep"] or _newest(client)
        body = _body(client, chosen, view)
    data = [{"value": FRESH, "label": "Fresh adapters (no sweep)"}]
    data += [{"value": sweep.id, "label": f"{sweep.name} ({sweep.workload})"} for sweep in sweeps]
    return html.Div(
        [
            dcc.Store(id=ids.CURVATURE_VIEW, data={**view, "sweep": chosen}),
            dcc.Store(id=ids.CURVATURE_PULSE),
            dcc.Store(id=ids.PROBE_SUBMITTED),
            dcc.Interval(id=ids.CURVATURE_TICK, interval=1500),
            dmc.Group(
                [
                    dmc.Title("Curvature", order=2),
                    select(ids.CURVATURE_SWEEP, "Probes of", chosen, data, searchable=True, miw=380),
                ],
                justify="space-between",
                align="flex-end",
                mb="md",
            ),
            html.Div(body, id=ids.CURVATURE_BODY),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the page, its plots, its form and its list."""

    @app.callback(
        Output(ids.CURVATURE_BODY, "children"),
        Output(ids.CURVATURE_VIEW, "data", allow_duplicate=True),
        Output(ids.URL, "search", allow_duplicate=True),
        Output(ids.CURVATURE_TICK, "interval", allow_duplicate=True),
        Input(ids.CURVATURE_SWEEP, "value"),
        State(ids.CURVATURE_VIEW, "data"),
        prevent_initial_call=True,
    )
    async def change_sweep(sweep: str, view: dict[str, Any]) -> Any:
        if not sweep or sweep == view["sweep"]:
            return (no_update,) * 4
        return await asyncio.to_thread(_change_sweep, connect, sweep, view)

    remember_view(app, "curvature", ids.CURVATURE_VIEW, DEFAULTS)

    @app.callback(
        Output(ids.CURVATURE_PULSE, "data"),
        Output(ids.CURVATURE_TICK, "interval"),
        Output(ids.CURVATURE_STATE, "children"),
        Input(ids.CURVATURE_TICK, "n_intervals"),
        State(ids.CURVATURE_VIEW, "data"),
        State(ids.CURVATURE_PULSE, "data"),
    )
    async def beat(_: int, view: dict[str, Any], pulse: str | None) -> Any:
        return await asyncio.to_thread(_beat, connect, view["sweep"], pulse)

    for part in (curvature_plots, probe_form, probe_list):
        part.register(app, connect)


def sweep_id(view: Mapping[str, Any]) -> str | None:
    """The sweep of the address, None for probes at fresh adapters."""
    return None if view["sweep"] == FRESH else str(view["sweep"])


def _newest(client: Client) -> str:
    """The sweep of the newest probe that belongs to one."""
    probes = client.probes(limit=200).items
    return next((probe.sweep_id for probe in probes if probe.sweep_id), FRESH)


def _change_sweep(connect: Connect, sweep: str, view: Mapping[str, Any]) -> Any:
    new = {**DEFAULTS, "tab": view["tab"], "x": view["x"], "sweep": sweep}
    try:
        with connect() as client:
            body = _body(client, sweep, new)
    except LoraAlphaError as error:
        body = [note("This sweep cannot be shown", str(error), colour="red")]
    return body, new, write_view(new, DEFAULTS), 1500


def _beat(connect: Connect, sweep: str, pulse: str | None) -> Any:
    try:
        with connect() as client:
            found = client.curvature(None if sweep == FRESH else sweep)
    except LoraAlphaError as error:
        return no_update, 5000, note("The service does not answer", str(error), colour="red")
    now = f"{sweep} {len(found.points)} {found.num_unfinished} {found.num_failed}"
    counted = [
        f"{len({point.probe_id for point in found.points})} probes of the extremes finished",
        *([f"{found.num_unfinished} probes to come"] if found.num_unfinished else []),
        *([f"{found.num_failed} failed or cancelled"] if found.num_failed else []),
    ]
    state = dmc.Text(", ".join(counted), size="sm", c="dimmed", mb="sm")
    return (now if now != pulse else no_update), (1500 if found.num_unfinished else 10_000), state


def _body(client: Client, sweep: str, view: Mapping[str, Any]) -> list[Component]:
    chosen: Sweep | None = None if sweep == FRESH else client.sweep(sweep)
    runs = client.runs(sweep, limit=500).items if chosen else []
    plots = curvature_plots.panels(view)
    panels = {
        **{name: card(panel) for name, panel in plots.items()},
        "probes": html.Div(
            [
                card(probe_form.form(chosen, runs, client.workloads().items), title="New probe"),
                card(probe_list.panel(sweep if chosen else None), title="Probes"),
            ]
        ),
    }
    tabs = dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab(title, value=name) for name, title in TABS.items()], mb="md"),
            *[dmc.TabsPanel(panels[name], value=name) for name in TABS],
        ],
        id=ids.curvature("tab"),
        value=view["tab"] if view["tab"] in TABS else "extremes",
        keepMounted=True,
    )
    return [html.Div(id=ids.CURVATURE_STATE), tabs]
