"""Signal, drift and purity of a sweep: over steps, along α×k and η×k, by layer, and under schedules of α."""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import Dash, dcc, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view
from dashboard.components.parts import badge, note, nothing_here
from dashboard.controls import Subject
from dashboard.tabbed import TabbedPage, Watched, chooser, open_page, register_page
from dashboard.tabs import tabs_of
from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

LIVE_MS, ENDED_MS = 3000, 30_000


def watch(client: Client, sweep_id: str) -> Watched:
    """The sweep's progress in words."""
    sweep = client.sweep(sweep_id)
    pulse = f"{sweep_id} {sweep.state} {sweep.progress:.4f} {sweep.counts.total}"
    return Watched(pulse, ENDED_MS if sweep.state in ENDED_SWEEPS else LIVE_MS, (_state(sweep),))


def _subject(client: Client, sweep_id: str) -> Subject:
    return Subject(client, client.sweep(sweep_id))


def _unrecorded(subject: Subject) -> list[Component]:
    """What to do about a sweep without signal and drift."""
    if subject.sweep is None or _every(subject.sweep):
        return []
    text = [
        "This sweep was trained with signal-drift recording off. ",
        dcc.Link("Duplicate it", href=f"/new?from={subject.sweep.id}"),
        " and set “Signal-drift every” to 10 or 50 steps. Losses and schedules are shown below.",
    ]
    return [note("No signal and drift in this sweep", text)]


PAGE = TabbedPage(
    name="dynamics",
    tabs=tabs_of("dynamics"),
    watch=watch,
    shared={"sweep": ""},
    subject=_subject,
    above=_unrecorded,
)


def layout(search: str | None, client: Client) -> Component:
    """The page, its sweep and controls as the address says; the newest sweep with dynamics otherwise."""
    asked = read_view(search, PAGE.shared)["sweep"]
    found = client.sweeps(limit=200).items
    if not found:
        text = "Signal, drift and purity appear here once a sweep trains."
        return nothing_here("No dynamics yet", text, "/new", "New sweep")
    chosen = client.sweep(asked) if asked else next(filter(_every, found), found[0])
    if chosen.id not in {sweep.id for sweep in found}:
        found = [chosen, *found]
    kept, body = open_page(PAGE, Subject(client, chosen), chosen.id, search)
    options = [{"value": sweep.id, "label": f"{sweep.name} ({sweep.workload})"} for sweep in found]
    head = chooser(PAGE, "Dynamics", "Sweep", chosen.id, options)
    return html.Div([*kept, head, html.Div(body, id=ids.body(PAGE.name))])


def register(app: Dash, client: Client) -> None:
    """Callbacks of the page and its tabs."""
    register_page(app, client, PAGE)


def _every(sweep: Sweep) -> int:
    """Steps between two records of signal and drift; 0 for none."""
    every: int = sweep.spec.get("train", {}).get("dynamics_every") or 0
    return every


def _state(sweep: Sweep) -> Component:
    counts = sweep.counts
    bad = [f"{n} {name}" for name, n in (("diverged", counts.diverged), ("failed", counts.failed)) if n]
    recorded = f"; signal and drift every {_every(sweep)} steps" if _every(sweep) else ""
    facts = ", ".join([f"{counts.finished} of {counts.total} runs finished", *bad])
    return dmc.Group(
        [badge(sweep.state), dmc.Text(facts + recorded, size="sm", c="dimmed")], gap="xs", mb="sm"
    )
