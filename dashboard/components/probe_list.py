"""The probes themselves: state, progress, estimate, result, and a button that cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import badge, behind, note, table
from dashboard.figures.style import number
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import Probe

FRESH = "fresh"  # in the place of a sweep: probes that belong to none
SHOWN = 100
ACTIVE = {"queued", "running"}


def panel(sweep: str | None) -> Component:
    """The list, and the export of everything in it."""
    query = f"?sweep={sweep}" if sweep else ""
    return html.Div(
        [
            html.Div(id=ids.PROBE_LIST),
            html.A(
                "probes.csv" if sweep else "probes.csv (of all sweeps)",
                href=f"/download/probes.csv{query}",
                className="row-link",
            ),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """Refresh and cancel."""

    @app.callback(
        Output(ids.PROBE_LIST, "children"),
        Output(ids.tick("curvature"), "interval", allow_duplicate=True),
        Input(ids.tick("curvature"), "n_intervals"),
        Input(ids.view("curvature"), "data"),
        Input(ids.PROBE_SUBMITTED, "data"),
        Input({"type": "cancel-probe", "probe": ALL}, "n_clicks"),
        State(ids.view("curvature"), "data"),
        prevent_initial_call="initial_duplicate",
    )
    async def refresh(
        _: int, view: dict[str, Any], submitted: int | None, clicks: list[int | None], __: Any
    ) -> Any:
        if view["tab"] != "probes":
            return no_update, no_update
        pressed = ctx.triggered_id
        probe = pressed["probe"] if isinstance(pressed, dict) and any(clicks) else None
        content, active = await asyncio.to_thread(listing, client, view["sweep"], probe)
        del submitted
        return content, 1500 if active else no_update


def listing(client: Client, sweep: str, cancel: str | None) -> tuple[Any, bool]:
    """The probes, after ``cancel`` was cancelled if it is named; and whether any is active."""
    problem: list[Component] = []
    try:
        if cancel is not None:
            try:
                client.cancel_probe(cancel)
            except LoraAlphaError as error:
                problem = [note("Not cancelled", str(error), colour="red")]
        fresh = client.probes(fresh=True, limit=SHOWN).items
        mine = [] if sweep == FRESH else client.probes(sweep=sweep, limit=SHOWN).items
    except LoraAlphaError as error:
        return note("The service does not answer", str(error), colour="red"), False
    active = any(probe.state in ACTIVE for probe in [*fresh, *mine])
    parts: list[Component] = [*problem]
    if sweep != FRESH:
        parts.append(_table(mine, "No probe of this sweep yet: start one above."))
    if sweep == FRESH or fresh:
        parts.append(dmc.Text("At fresh adapters", fw=600, size="sm", mt="sm"))
        parts.append(_table(fresh, "No probe at a fresh adapter yet: start one above."))
    return parts, active


def _table(probes: Sequence[Probe], nothing: str) -> Component:
    if not probes:
        return dmc.Text(nothing, c="dimmed", size="sm")
    headings = ["probe", "point", "kind", "space", "state", "estimate", "result", ""]
    live = [probe for probe in probes if probe.state in ACTIVE]
    done = [probe for probe in probes if probe.state not in ACTIVE]
    first, rest = [*live, *done][: max(len(live), 12)], [*live, *done][max(len(live), 12) :]
    parts: list[Component] = [table(headings, [_row(probe) for probe in first])]
    if rest:
        parts.append(behind(f"{len(rest)} older probes", table(headings, [_row(probe) for probe in rest])))
    return html.Div(parts)


def _row(probe: Probe) -> list[Any]:
    button: Any = ""
    if probe.state in ACTIVE:
        button = dmc.Button("Cancel", id=ids.cancel_probe(probe.id), size="compact-xs", variant="default")
    return [
        probe.id,
        point_name(probe),
        probe.kind,
        probe.space,
        _state(probe),
        _estimate(probe),
        _result(probe),
        button,
    ]


def point_name(probe: Probe) -> str:
    """Where the probe was taken."""
    point = (probe.result or {}).get("point", {})
    spec = probe.spec
    rank, alpha = point.get("rank", spec.get("rank")), point.get("alpha", spec.get("alpha"))
    parts = [f"run {probe.run_id}" if probe.run_id else str(spec.get("workload"))]
    if rank is not None:
        parts.append(f"r {rank}, α {number(alpha)}")
    return ", ".join([*parts, f"step {probe.step or 0}"])


def _state(probe: Probe) -> Component:
    if probe.state == "running":
        bar = dmc.Progress(value=100 * probe.progress, size="sm", w=120, **{"aria-label": "progress"})
        return dmc.Stack([badge(probe.state), bar], gap=4)
    return html.Div(badge(probe.state), style={"minWidth": 92})


def _estimate(probe: Probe) -> Any:
    estimate = (probe.result or {}).get("estimate")
    if not estimate:
        return dmc.Text(probe.message or "–", size="sm")
    memory = (estimate["basis_bytes"] + estimate["graph_bytes"]) / 2**20
    text = (
        f"{estimate['num_parameters']:,} coordinates, about {estimate['expected_seconds']:.2g} s "
        f"(at most {estimate['max_seconds']:.2g} s), {memory:,.0f} MiB"
    )
    lines = [dmc.Text(text, size="xs", style={"whiteSpace": "normal", "minWidth": 190})]
    if probe.state == "running" and probe.message:
        lines.append(dmc.Text(probe.message, size="xs", c="dimmed", style={"whiteSpace": "normal"}))
    return html.Div(lines)


def _result(probe: Probe) -> Any:
    if probe.error:
        return dmc.Text(probe.error, size="xs", c="red", style={"whiteSpace": "normal", "minWidth": 220})
    result = probe.result or {}
    if probe.state != "finished":
        return ""
    parts = [
        f"{name} {number(result[key])}"
        for key, name in (("lambda_max", "λ_max"), ("lambda_min", "λ_min"), ("trace", "trace"))
        if result.get(key) is not None
    ]
    if probe.kind == "top":
        top = [row["value"] for row in result["rows"] if row["kind"] == "top"]
        parts = [", ".join(number(value) for value in top[:4]) + (" …" if len(top) > 4 else "")]
    parts.append(f"{result.get('num_products', 0)} products")
    if not result.get("converged", True):
        parts.append("not converged")
    layers = sorted({row["kind"].partition("/")[2] for row in result.get("rows", [])} - {""})
    text = dmc.Text(", ".join(parts), size="xs", style={"whiteSpace": "normal", "minWidth": 200})
    return html.Div([text, _layers(result["rows"], layers)]) if layers else text


def _layers(rows: Sequence[dict[str, Any]], layers: Sequence[str]) -> Component:
    """The numbers of each layer, folded away."""
    shown = [
        [layer, kind, number(row["value"]), number(row["error"])]
        for layer in layers
        for row in rows
        if (parts := row["kind"].partition("/"))[2] == layer
        and (kind := parts[0]) not in ("density", "density_grid")
    ]
    return behind(f"{len(layers)} layers", table(["layer", "number", "value", "error"], shown, min_width=240))
