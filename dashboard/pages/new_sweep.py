"""The form that makes a sweep: workload and its knobs, axes, training, with the plan while typing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view
from dashboard.components.form_fields import FIELDS, MANY_OPTIONS, field_inputs, option_inputs, request_of
from dashboard.components.parts import note, table
from dashboard.figures.style import number
from dashboard.forms import FormError, body_from, named
from dashboard.pages.inspection import inspection_panel, subject
from dashboard.pages.presets import preset_cards
from lora_alpha.errors import InvalidSpec, LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import MethodItem, SweepPlan, WorkloadItem


def layout(search: str | None, client: Client) -> Component:
    """The form, filled from what the address names.

    ``?from=ID``: that sweep; ``?preset=NAME``: that preset; ``?workload=NAME``: that workload's defaults.
    """
    asked = read_view(search, {"from": "", "workload": "", "preset": ""})
    workloads, methods = client.workloads().items, client.methods().items
    presets = client.presets().items
    spec = client.sweep(asked["from"]).spec if asked["from"] else None
    given: dict[str, Any] = {}
    if spec is not None:
        given = request_of(spec)
    elif asked["preset"]:
        given = next((item.request for item in presets if item.id == asked["preset"]), {})
    by_id = {item.id: item for item in workloads}
    item = by_id.get(given.get("workload") or asked["workload"], workloads[0])
    return html.Div(
        [
            dmc.Title("New sweep", order=2, mb="md"),
            *([_explicit_cells(spec)] if spec and spec.get("cells") else []),
            preset_cards(presets),
            html.Div(id=ids.PRESET_RESULT),
            dcc.Store(id=ids.FORM_CHECKED),
            dmc.Grid(
                [
                    dmc.GridCol(_form(item, workloads, methods, given), span={"base": 12, "md": 8}),
                    dmc.GridCol(_side(), span={"base": 12, "md": 4}),
                ],
                gutter="lg",
            ),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """Callbacks of the form."""

    @app.callback(
        Output(ids.FORM_OPTIONS, "children"),
        Output(ids.FORM_ABOUT, "children"),
        Output(ids.INSPECTION_PANEL, "style"),
        Output({"type": "field", "name": ALL}, "value"),
        Input(ids.FORM_WORKLOAD, "value"),
        State({"type": "field", "name": ALL}, "id"),
        prevent_initial_call=True,
    )
    async def change_workload(name: str, field_ids: list[dict[str, str]]) -> Any:
        return await asyncio.to_thread(_change_workload, client, name, field_ids)

    @app.callback(
        Output(ids.FORM_PLAN, "children"),
        Output(ids.FORM_SUBMIT, "disabled"),
        Output({"type": "field", "name": ALL}, "error"),
        Output({"type": "option", "name": ALL}, "error"),
        Input(ids.FORM_WORKLOAD, "value"),
        Input({"type": "field", "name": ALL}, "value"),
        Input({"type": "option", "name": ALL}, "value"),
        Input(ids.FORM_CHECKED, "data"),
        State({"type": "field", "name": ALL}, "id"),
        State({"type": "option", "name": ALL}, "id"),
    )
    async def plan(
        workload: str,
        values: list[Any],
        options: list[Any],
        checked: str | None,
        field_ids: list[dict[str, str]],
        option_ids: list[dict[str, str]],
    ) -> Any:
        return await asyncio.to_thread(
            _plan, client, workload, named(field_ids, values), named(option_ids, options), checked
        )

    @app.callback(
        Output(ids.URL, "href"),
        Output(ids.FORM_RESULT, "children"),
        Input(ids.FORM_SUBMIT, "n_clicks"),
        State(ids.FORM_WORKLOAD, "value"),
        State({"type": "field", "name": ALL}, "value"),
        State({"type": "option", "name": ALL}, "value"),
        State({"type": "field", "name": ALL}, "id"),
        State({"type": "option", "name": ALL}, "id"),
        prevent_initial_call=True,
    )
    async def submit(
        clicks: int | None,
        workload: str,
        values: list[Any],
        options: list[Any],
        field_ids: list[dict[str, str]],
        option_ids: list[dict[str, str]],
    ) -> Any:
        if not clicks or ctx.triggered_id != ids.FORM_SUBMIT:
            return no_update, no_update
        return await asyncio.to_thread(
            _submit, client, workload, named(field_ids, values), named(option_ids, options)
        )


def _form(
    item: WorkloadItem, workloads: list[WorkloadItem], methods: list[MethodItem], given: Mapping[str, Any]
) -> Component:
    groups: dict[str, list[dict[str, str]]] = {}
    for workload in workloads:
        groups.setdefault(workload.family, []).append({"value": workload.id, "label": workload.title})
    data = [{"group": family, "items": items} for family, items in groups.items()]
    options = given.get("workload_options", {})
    return html.Div(
        [
            dmc.Paper(
                [
                    dmc.Title("Task", order=4, mb="xs"),
                    dmc.Select(
                        id=ids.FORM_WORKLOAD,
                        label="Workload",
                        value=item.id,
                        data=data,
                        allowDeselect=False,
                        searchable=True,
                    ),
                    html.Div(_about(item), id=ids.FORM_ABOUT),
                    html.Div(option_inputs(item.options_schema, options), id=ids.FORM_OPTIONS),
                    html.Div(inspection_panel(), id=ids.INSPECTION_PANEL, style=_panel_style(item)),
                ],
                withBorder=True,
                p="md",
                mb="md",
            ),
            *field_inputs(item.defaults, methods, given),
        ]
    )


def _side() -> Component:
    return dmc.Paper(
        [
            dmc.Title("Plan", order=4, mb="xs"),
            html.Div(id=ids.FORM_PLAN),
            dmc.Button("Submit sweep", id=ids.FORM_SUBMIT, fullWidth=True, mt="md", disabled=True),
            html.Div(id=ids.FORM_RESULT, style={"marginTop": 12}),
        ],
        withBorder=True,
        p="md",
        style={"position": "sticky", "top": 74},
    )


def _about(item: WorkloadItem) -> Component:
    lines = [
        dmc.Text(item.summary, size="sm"),
        dmc.Text([dmc.Text("Metric: ", fw=600, span=True), item.metric], size="sm", c="dimmed"),
        dmc.Text([dmc.Text("Regime: ", fw=600, span=True), item.regime], size="sm", c="dimmed"),
    ]
    if item.forgetting:
        lines.append(
            dmc.Text([dmc.Text("Forgetting: ", fw=600, span=True), item.forgetting], size="sm", c="dimmed")
        )
    return dmc.Stack(lines, gap=2, my="sm")


def _change_workload(client: Client, name: str, field_ids: list[dict[str, str]]) -> Any:
    item = next(item for item in client.workloads().items if item.id == name)
    values = [
        no_update if FIELDS[field["name"]].keep else FIELDS[field["name"]].show(item.defaults)
        for field in field_ids
    ]
    return option_inputs(item.options_schema, {}), _about(item), _panel_style(item), values


def _needs_check(item: WorkloadItem) -> bool:
    """Whether the workload rests on files of the user's: those are looked at before anything is queued."""
    return bool(item.options_schema.get("required"))


def _panel_style(item: WorkloadItem) -> dict[str, str]:
    return {} if _needs_check(item) else {"display": "none"}


def _explicit_cells(spec: Mapping[str, Any]) -> Component:
    text = (
        f"The sweep has {len(spec['cells'])} cells that are on no grid. The form makes grids: it takes over "
        "everything else."
    )
    return note("Explicit cells are left out", text)


def _plan(
    client: Client,
    workload: str,
    values: Mapping[str, Any],
    options: Mapping[str, Any],
    checked: str | None,
) -> Any:
    try:
        body = body_from(workload, values, options)
        plan = client.plan_sweep(body)
        item = next(item for item in client.workloads().items if item.id == workload)
    except FormError as error:
        return _unplanned(len(error.messages)), True, *_errors(error.messages, values, options)
    except LoraAlphaError as error:
        return (
            note("The service does not answer", str(error), colour="red"),
            True,
            *_errors({}, values, options),
        )
    messages = {error.field: error.message for error in plan.errors}
    left = _errors(messages, values, options)
    if not plan.valid:
        # Of many options some are folded away, and with them their errors.
        shown = options if len(options) <= MANY_OPTIONS else {}
        placed = set(values) | {f"workload_options.{name}" for name in shown}
        rest = [f"{f}: {m}" for f, m in messages.items() if f.split(".")[0] not in placed and f not in placed]
        return (
            [_unplanned(len(messages)), *[dmc.Text(text, c="red", size="sm") for text in rest]],
            True,
            *left,
        )
    waits = _needs_check(item) and checked != subject(workload, options)
    first = [note("Check model and data first", "The button is below the options.")] if waits else []
    return [*first, _show_plan(plan)], waits, *left


def _errors(messages: Mapping[str, str], values: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Errors in the order of the fields and of the options; an index after a field's name belongs to it."""
    by_field: dict[str, str] = {}
    for name, message in messages.items():
        key = name if name.startswith("workload_options") else name.split(".")[0]
        by_field.setdefault(key, message)
    return (
        [by_field.get(name, False) for name in values],
        [by_field.get(f"workload_options.{name}", False) for name in options],
    )


def _unplanned(count: int) -> Component:
    return dmc.Text(f"{count} field{'s' if count != 1 else ''} to correct", c="red", fw=600)


def _show_plan(plan: SweepPlan) -> Component:
    seconds = plan.estimated_seconds or 0.0
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    source = "from runs measured here" if plan.estimate_source == "measured" else "from the catalogue"
    parts: list[Component] = [
        dmc.Group(
            [
                dmc.Stack(
                    [dmc.Text(str(plan.num_runs), fw=700, fz=30, lh=1), dmc.Text("runs", size="sm")], gap=0
                ),
                dmc.Stack([dmc.Text(time, fw=700, fz=30, lh=1), dmc.Text("estimated", size="sm")], gap=0),
            ],
            gap="xl",
        ),
        dmc.Text(
            f"{plan.num_packs} packs, {plan.num_workers} workers; time {source}",
            size="xs",
            c="dimmed",
            mt=4,
        ),
        *[note("Mind", text) for text in plan.warnings],
    ]
    if plan.scales:
        rows = _scale_rows(plan)
        parts.append(
            html.Details(
                [
                    html.Summary("Resulting scale s = α/r (rsLoRA: α/√r)"),
                    table(["method", "rank", "α", "s"], rows, min_width=0),
                ],
                className="behind",
                open=True,
            )
        )
    return html.Div(parts)


def _scale_rows(plan: SweepPlan) -> list[list[str]]:
    """One row per method and rank: a range of α gives a range of s."""
    groups: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in plan.scales:
        groups.setdefault((row.method, row.rank), []).append((row.alpha, row.scale))
    rows = []
    for (method, rank), pairs in groups.items():
        alphas, scales = [alpha for alpha, _ in pairs], [scale for _, scale in pairs]
        rows.append([method, str(rank), _span(alphas), _span(scales)])
    return rows


def _span(values: list[float]) -> str:
    low, high = min(values), max(values)
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def _submit(client: Client, workload: str, values: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    try:
        sweep = client.create_sweep(body_from(workload, values, options))
    except FormError as error:
        return no_update, note("Not submitted", "; ".join(error.messages.values()), colour="red")
    except InvalidSpec as error:
        return no_update, note("Not submitted", "; ".join(map(str, error.problems)), colour="red")
    except LoraAlphaError as error:
        return no_update, note("Not submitted", str(error), colour="red")
    return f"/sweep/{sweep.id}", dcc.Link("Open the sweep", href=f"/sweep/{sweep.id}")
