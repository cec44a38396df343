"""Tab of the dynamics page: α×k beside η×k from one base configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Output, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, figure, select, table
from dashboard.connection import Connect
from dashboard.figures.dynamics import METRICS
from dashboard.figures.routes import (
    NAMES,
    Base,
    RoutePoint,
    bases,
    loss_figure,
    panels_figure,
    route_points,
)
from dashboard.figures.style import empty, number, theme
from dashboard.views import draw_tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

DEFAULTS: dict[str, Any] = {"base": "", "k_metric": "drift_ratio"}
NO_BASE = "Needs cells that differ from one configuration in α alone, and others in η alone."


def panel(client: Client, sweep: Sweep, view: Mapping[str, Any]) -> Component:
    """Base chooser, two panels, the losses below."""
    found = bases(client.cells(sweep.id).cells)
    chosen = view["base"] if view["base"] in {base.key for base in found} else ""
    data = [{"value": base.key, "label": base.label} for base in found]
    metrics = [{"value": name, "label": name.replace("_", " ")} for name in [*METRICS, "train_loss"]]
    return html.Div(
        [
            html.Div(
                [
                    select(
                        ids.dynamics("base"),
                        "Base configuration",
                        chosen or (found[0].key if found else None),
                        data,
                        miw=300,
                        disabled=not found,
                        placeholder="none",
                    ),
                    select(ids.dynamics("k_metric"), "Metric", view["k_metric"], metrics),
                ],
                className="controls",
            ),
            figure(ids.DYNAMICS_ROUTES, height=420),
            dmc.Title("Final loss and divergence", order=4, mt="md"),
            figure(f"{ids.DYNAMICS_ROUTES}-loss", height=360),
            html.Div(id=f"{ids.DYNAMICS_ROUTES}-table"),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """The tab's callback."""
    draw_tab(
        app,
        "routes",
        [
            Output(ids.DYNAMICS_ROUTES, "figure"),
            Output(f"{ids.DYNAMICS_ROUTES}-loss", "figure"),
            Output(f"{ids.DYNAMICS_ROUTES}-table", "children"),
        ],
        pulse=ids.DYNAMICS_PULSE,
        view=ids.DYNAMICS_VIEW,
        draw=partial(_draw, connect),
    )


def _draw(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            label = client.sweep(view["sweep"]).metric_label
            cells = client.cells(view["sweep"]).cells
            found = {base.key: base for base in bases(cells)}
            base = found.get(view["base"]) or next(iter(found.values()), None)
            if base is None:
                return empty(colours, NO_BASE, height=420), empty(colours, "", height=360), ""
            curves = client.curves(
                view["sweep"],
                metric=view["k_metric"],
                points=200,
                group_by="cell",
                method=base.method,
                rank=base.rank,
            )
    except LoraAlphaError as error:
        return empty(colours, str(error), height=420), empty(colours, "", height=360), ""
    points = route_points(cells, base, curves)
    return (
        panels_figure(points, base, colours, metric=view["k_metric"]),
        loss_figure(points, colours, label=label),
        _text_and_table(points, base, view["k_metric"]),
    )


def _text_and_table(points: Sequence[RoutePoint], base: Base, metric: str) -> list[Component]:
    rows = [
        [
            NAMES[point.route],
            number(point.k),
            number(point.cell.alpha),
            number(point.cell.scale),
            number(point.cell.lr),
            number(point.typical),
            number(point.cell.mean),
            number(point.cell.std),
            str(point.cell.n),
            str(point.cell.num_diverged or ""),
        ]
        for point in points
    ]
    name = metric.replace("_", " ")
    headings = ["route", "k", "α", "s", "η", f"{name}, median", "final loss", "std", "seeds", "diverged"]
    return [
        dmc.Text(_sentence(points, base), size="sm", mt="xs"),
        behind("Table: both routes", table(headings, rows)),
    ]


def _sentence(points: Sequence[RoutePoint], base: Base) -> str:
    """What the two routes show, from the numbers alone."""
    parts = [f"From {base.label}."]
    for route in ("alpha", "lr"):
        mine = [point for point in points if point.route == route]
        stable = [point for point in mine if point.cell.mean is not None and not point.cell.num_diverged]
        diverged = [point.k for point in mine if point.cell.num_diverged]
        if stable:
            best = min(stable, key=lambda point: point.cell.mean or 0.0)
            parts.append(f"{NAMES[route]}: lowest loss {number(best.cell.mean)} at k = {number(best.k)},")
            parts.append(
                f"first divergence at k = {number(min(diverged))}."
                if diverged
                else f"no divergence up to k = {number(max(point.k for point in mine))}."
            )
    return " ".join(parts)
