"""The check of model and data in the form: an inspection job, followed until it says what it found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import note, notes, table
from dashboard.figures.style import number
from dashboard.forms import named, options_from
from lora_alpha.errors import InvalidSpec, LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import Inspection

WAITING = {"queued", "running"}
POLL_MS = 700
MOST_NAMES = 8
WRAPPED = {"whiteSpace": "pre-wrap", "overflowWrap": "anywhere"}


def inspection_panel() -> Component:
    """The button, and room for the answer; shown for workloads that need the user's model or data."""
    return html.Div(
        [
            dmc.Group(
                [
                    dmc.Button("Check model and data", id=ids.INSPECT, variant="light"),
                    dmc.Text("Opens both on a worker before any run is queued.", size="sm", c="dimmed"),
                ],
                gap="sm",
                mt="md",
            ),
            html.Div(id=ids.INSPECTION, style={"marginTop": 12}),
            dcc.Store(id=ids.INSPECTION_JOB),
            dcc.Interval(id=ids.INSPECTION_TICK, interval=POLL_MS, disabled=True),
        ]
    )


def subject(workload: str, options: Mapping[str, Any]) -> str:
    """What a check is a check of: it stands for this workload with these options and no others."""
    return json.dumps([workload, options_from(options)], sort_keys=True)


def register(app: Dash, client: Client) -> None:
    """The button, and the watch over its job."""

    @app.callback(
        Output(ids.INSPECTION_JOB, "data"),
        Output(ids.INSPECTION, "children"),
        Output(ids.INSPECTION_TICK, "disabled"),
        Input(ids.INSPECT, "n_clicks"),
        State(ids.FORM_WORKLOAD, "value"),
        State({"type": "option", "name": ALL}, "value"),
        State({"type": "option", "name": ALL}, "id"),
        prevent_initial_call=True,
    )
    async def start(
        clicks: int | None, workload: str, options: list[Any], option_ids: list[dict[str, str]]
    ) -> Any:
        if not clicks:
            return no_update, no_update, no_update
        return await asyncio.to_thread(_start, client, workload, named(option_ids, options))

    @app.callback(
        Output(ids.INSPECTION, "children", allow_duplicate=True),
        Output(ids.INSPECTION_TICK, "disabled", allow_duplicate=True),
        Output(ids.FORM_CHECKED, "data"),
        Input(ids.INSPECTION_TICK, "n_intervals"),
        State(ids.INSPECTION_JOB, "data"),
        prevent_initial_call=True,
    )
    async def follow(_: int, job: dict[str, str] | None) -> Any:
        if not job:
            return no_update, True, no_update
        return await asyncio.to_thread(_follow, client, job)


def _start(client: Client, workload: str, options: Mapping[str, Any]) -> Any:
    try:
        inspection = client.create_inspection(workload, options_from(options))
    except InvalidSpec as error:
        return None, note("Not checked", "; ".join(map(str, error.problems)), colour="red"), True
    except LoraAlphaError as error:
        return None, note("Not checked", str(error), colour="red"), True
    return {"id": inspection.id, "subject": subject(workload, options)}, _show(inspection), False


def _follow(client: Client, job: Mapping[str, str]) -> Any:
    try:
        inspection = client.inspection(job["id"])
    except LoraAlphaError as error:
        return (
            note("The service does not answer", f"{error}. This tries again.", colour="red"),
            False,
            no_update,
        )
    if inspection.state in WAITING:
        return _show(inspection), False, no_update
    passed = inspection.state == "finished"
    return _show(inspection), True, job["subject"] if passed else no_update


def _show(inspection: Inspection) -> Component:
    if inspection.state in WAITING:
        return html.Div(
            [
                dmc.Text(inspection.message or "waiting for a worker", size="sm", c="dimmed"),
                dmc.Progress(value=100, animated=True, size="sm", **{"aria-label": "checking"}),
            ]
        )
    if inspection.state != "finished":
        return note("This cannot be trained", inspection.error or inspection.state, colour="red")
    found = dict(inspection.result or {})
    warnings = [str(text) for text in found.pop("warnings", [])]
    sample = found.pop("sample", None)
    rows = [
        [_name(name), html.Div(_text(value, name), style=WRAPPED)]
        for name, value in found.items()
        if value not in (None, "", [], {})
    ]
    parts: list[Component] = [
        note(
            "Model and data are ready", "What was found is below; the sweep can be submitted.", colour="teal"
        ),
        *notes(warnings),
        table(["found", ""], rows),
    ]
    if sample:
        parts += [
            dmc.Text("One example, as it is trained", size="sm", fw=600),
            html.Pre(_sample(sample), style=WRAPPED),
        ]
    return html.Div(parts)


def _sample(sample: Any) -> str:
    if isinstance(sample, Mapping):
        return "\n".join(f"[{name}]\n{text}" for name, text in sample.items())
    return str(sample)


def _name(key: str) -> str:
    return key.removeprefix("num_").removesuffix("_bytes").replace("_", " ")


def _text(value: Any, name: str = "") -> str:
    """A found value in words: numbers as people read them, lists with commas, records as name and value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and "bytes" in name:
        return f"{value / 2**20:,.1f} MiB"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_name(key)} {_text(part, key)}" for key, part in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - MOST_NAMES} more" if len(value) > MOST_NAMES else ""
        return ", ".join(_text(part) for part in value[:MOST_NAMES]) + more
    return str(value)
