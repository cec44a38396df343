"""Tab of the dynamics page: one metric layer by layer, over steps or over configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Output, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, figure, note, select, switch, table
from dashboard.connection import Connect
from dashboard.figures.dynamics import METRICS, layer_figure, short_names
from dashboard.figures.style import empty, number, theme
from dashboard.views import draw_tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curve, Sweep

DEFAULTS: dict[str, Any] = {"strip_metric": "drift_ratio", "across": "steps", "strip_cell": ""}
MAX_LAYERS = 64
PER_LAYER = [name for name in METRICS if name != "scale"]


def panel(client: Client, sweep: Sweep, view: Mapping[str, Any]) -> Component:
    """Controls, heat strip and table."""
    known = client.curves(sweep.id, metric="eval_loss", points=3, group_by="cell").curves
    data = [
        {"value": curve.key, "label": name} for name, curve in zip(short_names(known), known, strict=True)
    ]
    keys = [curve.key for curve in known]
    chosen = view["strip_cell"] if view["strip_cell"] in keys else (keys[0] if keys else None)
    metrics = [{"value": name, "label": name.replace("_", " ")} for name in PER_LAYER]
    across = [
        {"value": "steps", "label": "steps"},
        {"value": "configurations", "label": "configurations, last step"},
    ]
    return html.Div(
        [
            html.Div(
                [
                    select(ids.dynamics("strip_metric"), "Metric", view["strip_metric"], metrics),
                    switch(ids.dynamics("across"), "Across", view["across"], across),
                    select(
                        ids.dynamics("strip_cell"),
                        "Configuration (for steps)",
                        chosen,
                        data,
                        miw=260,
                        searchable=True,
                        placeholder="none yet",
                    ),
                ],
                className="controls",
            ),
            figure(ids.DYNAMICS_LAYERS, height=420),
            html.Div(id=f"{ids.DYNAMICS_LAYERS}-table"),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """The tab's callback."""
    draw_tab(
        app,
        "layers",
        [
            Output(ids.DYNAMICS_LAYERS, "figure"),
            Output(f"{ids.DYNAMICS_LAYERS}-table", "children"),
        ],
        pulse=ids.DYNAMICS_PULSE,
        view=ids.DYNAMICS_VIEW,
        draw=partial(_draw, connect),
    )


def _draw(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    metric = view["strip_metric"]
    try:
        with connect() as client:
            layers, by_layer = _fetch(client, view["sweep"], metric)
    except LoraAlphaError as error:
        return empty(colours, str(error), height=360), no_update
    if view["across"] == "configurations":
        columns, rows = _last_values(by_layer)
        across = "configuration"
    else:
        columns, rows = _over_steps(by_layer, view["strip_cell"])
        across = "optimiser step"
    plot = layer_figure(rows, columns, colours, metric=metric, across=across)
    cut = []
    if len(layers) > MAX_LAYERS:
        cut = [note("Mind", f"{len(layers)} layers: the first {MAX_LAYERS} are drawn.")]
    shown = [[layer, *[number(value) for value in _thinned(row)]] for layer, row in rows.items()]
    headings = ["layer", *[str(column) for column in _thinned(columns)]]
    text = "Mean over seeds. Layers in the model's order."
    return plot, [
        dmc.Text(text, size="sm", c="dimmed"),
        *cut,
        behind("Table: values by layer", table(headings, shown)),
    ]


def _fetch(client: Client, sweep_id: str, metric: str) -> tuple[list[str], dict[str, list[Curve]]]:
    names = client.curves(sweep_id, metric=metric, points=3, group_by="cell").metrics
    prefix = f"{metric}/"
    layers = sorted((name.removeprefix(prefix) for name in names if name.startswith(prefix)), key=_natural)
    return layers, {
        layer: client.curves(sweep_id, metric=prefix + layer, points=120, group_by="cell").curves
        for layer in layers[:MAX_LAYERS]
    }


def _over_steps(
    by_layer: Mapping[str, Sequence[Curve]], key: str
) -> tuple[list[Any], dict[str, list[float | None]]]:
    found: dict[str, Curve] = {}
    for layer, curves in by_layer.items():
        mine = [curve for curve in curves if curve.key == key] or list(curves[:1])
        if mine:
            found[layer] = mine[0]
    steps = sorted({step for curve in found.values() for step in curve.step})
    rows = {}
    for layer, curve in found.items():
        values = dict(zip(curve.step, curve.value, strict=True))
        rows[layer] = [values.get(step) for step in steps]
    return list(steps), rows


def _last_values(by_layer: Mapping[str, Sequence[Curve]]) -> tuple[list[Any], dict[str, list[float | None]]]:
    every = {curve.key: curve for curves in by_layer.values() for curve in curves}
    ordered = sorted(every.values(), key=_place)
    rows = {}
    for layer, curves in by_layer.items():
        last = {curve.key: _last(curve) for curve in curves}
        rows[layer] = [last.get(curve.key) for curve in ordered]
    return list(short_names(ordered)), rows


def _last(curve: Curve) -> float | None:
    return next((value for value in reversed(curve.value) if value is not None), None)


def _place(curve: Curve) -> tuple[str, float, float, float]:
    labels = curve.labels
    numbers = [float(labels.get(name) or 0.0) for name in ("rank", "lr", "alpha")]
    return (str(labels.get("method")), numbers[0], numbers[1], numbers[2])


def _natural(layer: str) -> list[tuple[int, Any]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in layer.split(".")]


def _thinned(values: Sequence[Any]) -> list[Any]:
    """At most a dozen columns of a table, first and last among them."""
    if len(values) <= 12:
        return list(values)
    return [values[round(index * (len(values) - 1) / 11)] for index in range(12)]
