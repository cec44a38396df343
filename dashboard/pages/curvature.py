"""Curvature: λ_max and λ_min in LoRA and full-weight coordinates, densities, and the probes behind them."""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import Dash, dcc, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view
from dashboard.controls import Subject
from dashboard.tabbed import TabbedPage, Watched, chooser, open_page, register_page
from dashboard.tabs import tabs_of
from dashboard.tabs.probes import FRESH
from lora_alpha.wire.client import Client

LIVE_MS, ENDED_MS = 1500, 10_000


def watch(client: Client, sweep: str) -> Watched:
    """How many probes have finished, in words."""
    found = client.curvature(None if sweep == FRESH else sweep)
    pulse = f"{sweep} {len(found.points)} {found.num_unfinished} {found.num_failed}"
    counted = [
        f"{len({point.probe_id for point in found.points})} probes of the extremes finished",
        *([f"{found.num_unfinished} probes to come"] if found.num_unfinished else []),
        *([f"{found.num_failed} failed or cancelled"] if found.num_failed else []),
    ]
    state = dmc.Text(", ".join(counted), size="sm", c="dimmed", mb="sm")
    return Watched(pulse, LIVE_MS if found.num_unfinished else ENDED_MS, (state,))


def _subject(client: Client, sweep: str) -> Subject:
    return Subject(client, None if sweep == FRESH else client.sweep(sweep))


PAGE = TabbedPage(
    name="curvature", tabs=tabs_of("curvature"), watch=watch, shared={"sweep": ""}, subject=_subject
)


def layout(search: str | None, client: Client) -> Component:
    """The page as the address says; the newest sweep with probes otherwise."""
    asked = read_view(search, PAGE.shared)["sweep"]
    sweeps = client.sweeps(limit=200).items
    if asked and asked not in {FRESH, *(sweep.id for sweep in sweeps)}:
        sweeps = [client.sweep(asked), *sweeps]
    chosen = asked or _newest(client)
    kept, body = open_page(PAGE, _subject(client, chosen), chosen, search)
    options = [{"value": FRESH, "label": "Fresh adapters (no sweep)"}]
    options += [{"value": sweep.id, "label": f"{sweep.name} ({sweep.workload})"} for sweep in sweeps]
    head = chooser(PAGE, "Curvature", "Probes of", chosen, options)
    submitted = dcc.Store(id=ids.PROBE_SUBMITTED)
    return html.Div([*kept, submitted, head, html.Div(body, id=ids.body(PAGE.name))])


def register(app: Dash, client: Client) -> None:
    """Callbacks of the page and its tabs."""
    register_page(app, client, PAGE)


def _newest(client: Client) -> str:
    """The sweep of the newest probe that belongs to one."""
    probes = client.probes(limit=200).items
    return next((probe.sweep_id for probe in probes if probe.sweep_id), FRESH)
