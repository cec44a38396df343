"""Tab of the curvature page with its probes: a form for new ones, the list of all; what its plots share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html
from dash.development.base_component import Component

from dashboard.components import probe_form, probe_list
from dashboard.components.parts import card
from dashboard.controls import Subject
from dashboard.figures.curvature import steps_of
from dashboard.tab import Row, Tab
from lora_alpha.wire.analysis import Curvature
from lora_alpha.wire.client import Client

FRESH = probe_list.FRESH


def read_curvature(client: Client, view: Mapping[str, Any]) -> Curvature:
    """Extremes, suppression and best η of the sweep's probes, or of those at fresh adapters."""
    return client.curvature(None if view["sweep"] == FRESH else view["sweep"])


def step_of(found: Curvature, view: Mapping[str, Any]) -> int:
    """The step of the address where it was probed, else the first that was."""
    known = steps_of(found)
    wanted = int(view["step"]) if str(view["step"]).isdigit() else 0
    return wanted if wanted in known or not known else known[0]


def step_name(step: int) -> str:
    """``start (B = 0)`` or ``step 100``."""
    return "start (B = 0)" if step == 0 else f"step {step}"


def reasons(found: Curvature, *, of_rates: bool) -> list[Component]:
    """What is missing for this tab: of the best η, or of the probes."""
    shown = [reason for reason in found.reasons if ("best η" in reason) == of_rates]
    return [dmc.Text(f"{reason[:1].upper()}{reason[1:]}.", size="sm", c="dimmed") for reason in shown]


def panel(subject: Subject, _: Row) -> Component:
    """Form and list."""
    sweep, client = subject.sweep, subject.client
    runs = client.runs(sweep.id, limit=500).items if sweep is not None else []
    return html.Div(
        [
            card(probe_form.form(sweep, runs, client.workloads().items), title="New probe"),
            card(probe_list.panel(sweep.id if sweep is not None else None), title="Probes"),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """Callbacks of the form and of the list."""
    probe_form.register(app, client)
    probe_list.register(app, client)


TAB = Tab(page="curvature", name="probes", title="Probes", panel=panel, register=register)
