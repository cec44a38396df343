"""One sweep: its header, and the tabs that show what it measured."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import badge, note, notes
from dashboard.controls import Subject
from dashboard.pages.presets import preset_note
from dashboard.pages.sweeps import time_left
from dashboard.tabbed import TabbedPage, Watched, open_page, register_page
from dashboard.tabs import tabs_of
from lora_alpha.errors import LoraAlphaError
from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.client import Client
from lora_alpha.wire.queries import Verb
from lora_alpha.wire.sweeps import Sweep

LIVE_MS, ENDED_MS = 1500, 15_000
HEAD = 3  # name, buttons, facts


def watch(client: Client, sweep_id: str) -> Watched:
    """The sweep's progress, and its header."""
    sweep = client.sweep(sweep_id)
    counts = sweep.counts
    pulse = f"{sweep.state} {sweep.progress:.5f} {counts.total} {counts.finished} {counts.failed}"
    # A finished sweep can still be extended or retried elsewhere: look again, but seldom.
    interval = ENDED_MS if sweep.state in ENDED_SWEEPS else LIVE_MS
    return Watched(pulse, interval, (_name(sweep), _buttons(sweep), _facts(sweep)))


PAGE = TabbedPage(name="sweep", tabs=tabs_of("sweep"), watch=watch, heads=HEAD)


def layout(sweep_id: str, search: str | None, client: Client) -> Component:
    """The page, its controls as the address says."""
    sweep = client.sweep(sweep_id)
    kept, (name, buttons, facts, *tabs) = open_page(PAGE, Subject(client, sweep), sweep_id, search)
    return html.Div(
        [
            *kept,
            dmc.Group([name, buttons], justify="space-between", mb=4),
            html.Div(id=ids.STEER_RESULT),
            facts,
            html.Div(preset_note(client, sweep), style={"margin": "8px 0"}),
            *tabs,
        ]
    )


def register(app: Dash, client: Client) -> None:
    """Callbacks of the header, the address and all tabs."""
    register_page(app, client, PAGE)

    @app.callback(
        Output(ids.STEER_RESULT, "children"),
        Output(ids.tick(PAGE.name), "n_intervals"),  # so that the header is read again at once
        Input(ids.action(ALL), "n_clicks"),
        State(ids.view(PAGE.name), "data"),
        State(ids.tick(PAGE.name), "n_intervals"),
        prevent_initial_call=True,
    )
    async def steer(clicks: list[int | None], view: dict[str, Any], beats: int | None) -> Any:
        pressed = ctx.triggered_id
        if not any(clicks) or not isinstance(pressed, dict):
            return no_update, no_update
        return await asyncio.to_thread(_steer, client, view["sweep"], pressed["verb"]), (beats or 0) + 1


def _steer(client: Client, sweep_id: str, verb: Verb) -> list[Component]:
    try:
        client.sweep_action(sweep_id, verb)
    except LoraAlphaError as error:
        return [note("Not done", str(error), colour="red")]
    return []


def _name(sweep: Sweep) -> Component:
    return dmc.Group([dmc.Title(sweep.name, order=2), badge(sweep.state)], gap="sm")


def _buttons(sweep: Sweep) -> Component:
    """What the API allows in this state; a copy of the sweep; its other pages where they have something."""
    steering = [
        dmc.Button(verb.capitalize(), id=ids.action(verb), size="xs", variant="default")
        for verb in sweep.actions
        if verb in get_args(Verb)
    ]
    links = {"Duplicate": f"/new?from={sweep.id}"}
    if sweep.spec.get("train", {}).get("dynamics_every"):
        links["Dynamics"] = f"/dynamics?sweep={sweep.id}"
    if sweep.spec.get("probes"):
        links["Curvature"] = f"/curvature?sweep={sweep.id}"
    others = [
        dcc.Link(dmc.Button(name, size="xs", variant="default"), href=address)
        for name, address in links.items()
    ]
    return dmc.Group([*steering, *others], gap="xs")


def _facts(sweep: Sweep) -> list[Component]:
    counts = sweep.counts
    bad = [
        f"{count} {name}"
        for name, count in (("diverged", counts.diverged), ("failed", counts.failed), ("lost", counts.lost))
        if count
    ]
    facts = ", ".join([f"{counts.finished} of {counts.total} runs finished", *bad])
    left = time_left(sweep)
    return [
        dmc.Text(
            f"{sweep.workload}. {facts}{f'; {left} left' if left else ''}. Metric: {sweep.metric_label}.",
            c="dimmed",
            size="sm",
        ),
        dmc.Progress(value=100 * sweep.progress, size="sm", my="sm", **{"aria-label": "progress"}),
        *notes(sweep.warnings),
    ]
