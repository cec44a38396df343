"""Tab of the dynamics page: one metric layer by layer, over steps or over configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc

from dashboard.components.parts import behind, note, table
from dashboard.controls import Subject, choice, switch
from dashboard.figures.dynamics import METRICS, NOTHING, layer_figure, short_names
from dashboard.figures.style import Theme, number
from dashboard.tab import Plot, Tab, Words
from dashboard.tabs.steps import metric_options
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curve, Curves

PER_LAYER = [name for name in METRICS if name != "scale"]
ACROSS = [
    {"value": "steps", "label": "steps"},
    {"value": "configurations", "label": "configurations, last step"},
]


def fetch(client: Client, view: Mapping[str, Any]) -> Curves:
    """The metric of every layer, as many as the service gives in one answer."""
    asked = [f"{view['strip_metric']}/*"]
    return client.curves(view["sweep"], metrics=asked, points=120, group_by="cell")


def draw(curves: Curves, view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """Heat strip, what to mind, table."""
    metric = view["strip_metric"]
    by_layer: dict[str, list[Curve]] = {}
    for curve in curves.curves:
        by_layer.setdefault(curve.metric.removeprefix(f"{metric}/"), []).append(curve)
    if view["across"] == "configurations":
        columns, rows = _last_values(by_layer)
        across = "configuration"
    else:
        columns, rows = _over_steps(by_layer, view["strip_cell"])
        across = "optimiser step"
    plot = layer_figure(rows, columns, colours, metric=metric, across=across)
    num_layers = sum(name.startswith(f"{metric}/") for name in curves.metrics)
    cut = []
    if num_layers > len(by_layer) > 0:
        cut = [note("Mind", f"{num_layers} layers: the first {len(by_layer)} are drawn.")]
    shown = [[layer, *[number(value) for value in _thinned(row)]] for layer, row in rows.items()]
    headings = ["layer", *[str(column) for column in _thinned(columns)]]
    text = "Mean over seeds. Layers in the model's order."
    return plot, [
        dmc.Text(text, size="sm", c="dimmed"),
        *cut,
        behind("Table: values by layer", table(headings, shown)),
    ]


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
    ordered = sorted(every.values(), key=_order)
    rows = {}
    for layer, curves in by_layer.items():
        last = {curve.key: _last(curve) for curve in curves}
        rows[layer] = [last.get(curve.key) for curve in ordered]
    return list(short_names(ordered)), rows


def _last(curve: Curve) -> float | None:
    return next((value for value in reversed(curve.value) if value is not None), None)


def _order(curve: Curve) -> tuple[str, float, float, float]:
    labels = curve.labels
    numbers = [float(labels.get(name) or 0.0) for name in ("rank", "lr", "alpha")]
    return (str(labels.get("method")), numbers[0], numbers[1], numbers[2])


def _thinned(values: Sequence[Any]) -> list[Any]:
    """At most a dozen columns of a table, first and last among them."""
    if len(values) <= 12:
        return list(values)
    return [values[round(index * (len(values) - 1) / 11)] for index in range(12)]


def _cells(subject: Subject) -> list[dict[str, str]]:
    known = subject.cell_curves
    return [
        {"value": curve.key, "label": name} for name, curve in zip(short_names(known), known, strict=True)
    ]


def _first_cell(subject: Subject) -> str:
    return next((curve.key for curve in subject.cell_curves), "")


TAB = Tab(
    page="dynamics",
    name="layers",
    title="Layers",
    controls=(
        choice("strip_metric", "Metric", "drift_ratio", metric_options(*PER_LAYER)),
        switch("across", "Across", "steps", ACROSS),
        choice(
            "strip_cell",
            "Configuration (for steps)",
            _first_cell,
            _cells,
            of_sweep=True,
            miw=260,
            searchable=True,
            placeholder="none yet",
        ),
    ),
    parts=(Plot("dynamics-layers", height=420), Words("dynamics-layers-table")),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
)
