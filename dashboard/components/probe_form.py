"""The form that queues a Hessian probe: what, where, how exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import note
from lora_alpha.errors import InvalidSpec, LoraAlphaError
from lora_alpha.spec import ProbeSettings, schema_fields, short_number
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Run, Sweep, WorkloadItem

KINDS = [
    {"value": "extremes", "label": "extremes: λ_max and λ_min"},
    {"value": "top", "label": "top: the largest eigenvalues"},
    {"value": "density", "label": "density: the whole spectrum"},
    {"value": "trace", "label": "trace: mean curvature"},
]
SPACES = [
    {"value": "both", "label": "both"},
    {"value": "lora", "label": "LoRA coordinates"},
    {"value": "full", "label": "full weights"},
]
NUMBERS = {
    name: part
    for name, part in schema_fields(ProbeSettings).items()
    if part.get("type") in {"integer", "number"}
}
POINTS = {"run": ("run", "step"), "fresh": ("workload", "rank", "alpha", "seed")}


def form(sweep: Sweep | None, runs: Sequence[Run], workloads: Sequence[WorkloadItem]) -> Component:
    """The form; without a sweep only fresh adapters can be probed."""
    point = "run" if sweep is not None and runs else "fresh"
    return html.Div(
        [
            dmc.SimpleGrid(
                [
                    _select("kind", "Kind", "extremes", KINDS),
                    _select("space", "Space", "both", SPACES),
                    _select("dtype", "Precision", "float32", ["float32", "float64"]),
                    dmc.Stack(
                        [
                            dmc.Text("Per layer", size="sm", fw=500),
                            dmc.Switch(id=ids.probe("per_layer"), checked=False, label="each layer too"),
                        ],
                        gap=6,
                    ),
                ],
                cols={"base": 1, "sm": 4},
            ),
            dmc.SegmentedControl(
                id=ids.PROBE_POINT,
                value=point,
                data=[
                    {"value": "run", "label": "A run of this sweep", "disabled": not runs},
                    {"value": "fresh", "label": "A fresh adapter"},
                ],
                my="md",
            ),
            html.Div(_run_point(sweep, runs), id=f"{ids.PROBE_POINT}-run"),
            html.Div(_fresh_point(workloads), id=f"{ids.PROBE_POINT}-fresh"),
            dmc.Accordion(
                dmc.AccordionItem(
                    [
                        dmc.AccordionControl("More: exactness and data"),
                        dmc.AccordionPanel(
                            dmc.SimpleGrid(
                                [_text(name, part["title"], _about(part)) for name, part in NUMBERS.items()],
                                cols={"base": 1, "sm": 4},
                            )
                        ),
                    ],
                    value="more",
                ),
                variant="separated",
                mt="md",
            ),
            dmc.Group(
                [
                    dmc.Button("Start probe", id=ids.PROBE_SUBMIT),
                    dmc.Text(
                        "The estimate of memory and time appears below before the measurement starts.",
                        size="sm",
                        c="dimmed",
                    ),
                ],
                mt="md",
            ),
            html.Div(id=ids.PROBE_RESULT, style={"marginTop": 12}),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """Which point is asked for, and submission."""

    @app.callback(
        Output(f"{ids.PROBE_POINT}-run", "style"),
        Output(f"{ids.PROBE_POINT}-fresh", "style"),
        Input(ids.PROBE_POINT, "value"),
    )
    async def show_point(point: str) -> Any:
        hidden = {"display": "none"}
        return ({}, hidden) if point == "run" else (hidden, {})

    @app.callback(
        Output({"type": "probe", "name": ALL}, "error"),
        Output(ids.PROBE_RESULT, "children"),
        Output(ids.PROBE_SUBMITTED, "data"),
        Input(ids.PROBE_SUBMIT, "n_clicks"),
        State(ids.PROBE_POINT, "value"),
        State({"type": "probe", "name": ALL}, "value"),
        State(ids.probe("per_layer"), "checked"),
        State({"type": "probe", "name": ALL}, "id"),
        prevent_initial_call=True,
    )
    async def submit(
        clicks: int | None, point: str, values: list[Any], per_layer: bool, names: list[dict[str, str]]
    ) -> Any:
        keys = [item["name"] for item in names]
        if not clicks:
            return [no_update] * len(keys), no_update, no_update
        given = {**dict(zip(keys, values, strict=True)), "per_layer": per_layer}
        messages, result = await asyncio.to_thread(_submit, client, point, given)
        return [messages.get(key, False) for key in keys], result, clicks


def bodies(point: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bodies of ``POST /probes``, one a space; empty fields are left to their defaults.

    Numbers go as typed: the API says what is wrong with them.
    """
    of_point = POINTS[point]
    others = {name for names in POINTS.values() for name in names} - set(of_point)
    body = {
        name: value
        for name, value in given.items()
        if name not in others and name != "space" and value not in (None, "", False)
    }
    if body.get("step") == "end":
        del body["step"]
    spaces = ("lora", "full") if given.get("space") == "both" else (given.get("space"),)
    return [{**body, "space": space} for space in spaces]


def _submit(client: Client, point: str, given: Mapping[str, Any]) -> tuple[dict[str, str], Any]:
    started = []
    try:
        for body in bodies(point, given):
            started.append(client.create_probe(body).id)
    except InvalidSpec as error:
        messages = {problem.field.split(".")[0]: problem.message for problem in error.problems}
        rest = [str(problem) for problem in error.problems if problem.field.split(".")[0] not in given]
        text = "; ".join(rest) or "Correct the marked fields."
        return messages, note("Not started", text, colour="red")
    except LoraAlphaError as error:
        return {}, note("Not started", str(error), colour="red")
    return {}, note("Started", f"Probe {' and '.join(started)}: see the list below.", colour="teal")


def _run_point(sweep: Sweep | None, runs: Sequence[Run]) -> Component:
    names = [{"value": run.id, "label": f"{run.name} ({run.state})"} for run in runs]
    first = next((run.id for run in runs if run.state == "finished"), runs[0].id if runs else None)
    kept = sweep.spec.get("train", {}).get("adapter_steps", []) if sweep else []
    steps = [{"value": "0", "label": "start (B = 0)"}]
    steps += [{"value": str(step), "label": f"step {step}"} for step in kept]
    return dmc.SimpleGrid(
        [
            _select("run", "Run", first, names, searchable=True),
            _select("step", "Step", "0", [*steps, {"value": "end", "label": "end"}]),
        ],
        cols={"base": 1, "sm": 2},
    )


def _fresh_point(workloads: Sequence[WorkloadItem]) -> Component:
    return dmc.SimpleGrid(
        [
            _select("workload", "Workload", workloads[0].id, [item.id for item in workloads]),
            _text("rank", "Rank r", "Of the adapter.", "8"),
            _text("alpha", "α", "s = α/r.", "8"),
            _text("seed", "Seed", "Of the adapter and the batches.", "0"),
        ],
        cols={"base": 1, "sm": 4},
    )


def _about(part: Mapping[str, Any]) -> str:
    """Help of a declared field with its default, if the help does not say what happens without a value."""
    help, default = part["description"], part["default"]
    return f"{help} {short_number(default)} unless given." if default is not None else str(help)


def _select(name: str, label: str, value: str | None, data: Sequence[Any], **more: Any) -> Component:
    return dmc.Select(
        id=ids.probe(name), label=label, value=value, data=list(data), allowDeselect=False, **more
    )


def _text(name: str, label: str, about: str, value: str = "") -> Component:
    return dmc.TextInput(id=ids.probe(name), label=label, description=about, value=value)
