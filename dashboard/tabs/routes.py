"""Tab of the dynamics page: α×k beside η×k from one base configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash.development.base_component import Component

from dashboard.components.parts import behind, table
from dashboard.controls import Subject, choice
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
from dashboard.figures.style import Theme, number
from dashboard.tab import Plot, Tab, Words
from dashboard.tabs.alpha_eta import metric_label
from dashboard.tabs.steps import metric_options
from lora_alpha.wire.client import Client


@dataclass(frozen=True)
class Found:
    """Both routes from the base, and what α is chosen by."""

    base: Base
    points: list[RoutePoint]
    label: str


def fetch(client: Client, view: Mapping[str, Any]) -> Found | None:
    """The routes from the base that the address names, else from the first there is."""
    read = client.cells(view["sweep"])
    cells = read.cells
    found = {base.key: base for base in bases(cells)}
    base = found.get(view["base"]) or next(iter(found.values()), None)
    if base is None:
        return None
    curves = client.curves(
        view["sweep"],
        metric=view["k_metric"],
        points=200,
        group_by="cell",
        method=base.method,
        rank=base.rank,
    )
    label = metric_label(read.metric, client.sweep(view["sweep"]))
    return Found(base, route_points(cells, base, curves), label)


def draw(found: Found, view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """The metric on both routes, the losses, a sentence with the table."""
    base, metric = found.base, view["k_metric"]
    return (
        panels_figure(found.points, base, colours, metric=metric),
        loss_figure(found.points, colours, label=found.label),
        _text_and_table(found.points, base, metric),
    )


def _bases(subject: Subject) -> list[dict[str, str]]:
    return [{"value": base.key, "label": base.label} for base in bases(subject.cells)]


def _first_base(subject: Subject) -> str:
    return next((base.key for base in bases(subject.cells)), "")


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
    headings = ["route", "k", "α", "s", "η", f"{name}, median", "final value", "std", "seeds", "diverged"]
    return [
        dmc.Text(_sentence(points, base), size="sm", mt="xs"),
        behind("Table: both routes", table(headings, rows)),
    ]


def _sentence(points: Sequence[RoutePoint], base: Base) -> str:
    """What the two routes show, from the numbers alone."""
    parts = [f"From {base.label}."]
    for route in ("alpha", "lr"):
        mine = [point for point in points if point.route == route]
        stable = [point for point in mine if point.cell.measured]
        diverged = [point.k for point in mine if point.cell.num_diverged]
        if stable:
            best = min(stable, key=lambda point: point.cell.cost or 0.0)
            name = best.cell.metric.name
            parts.append(f"{NAMES[route]}: best {name} {number(best.cell.mean)} at k = {number(best.k)},")
            parts.append(
                f"first divergence at k = {number(min(diverged))}."
                if diverged
                else f"no divergence up to k = {number(max(point.k for point in mine))}."
            )
    return " ".join(parts)


TAB = Tab(
    page="dynamics",
    name="routes",
    title="α×k beside η×k",
    controls=(
        choice("base", "Base configuration", _first_base, _bases, of_sweep=True, miw=300, placeholder="none"),
        choice("k_metric", "Metric", "drift_ratio", metric_options(*METRICS, "train_loss")),
    ),
    parts=(
        Plot("dynamics-routes", height=420),
        Plot("dynamics-routes-loss", height=360, title="Final value and divergence"),
        Words("dynamics-routes-table"),
    ),
    fetch=fetch,
    draw=draw,
    empty="Needs cells that differ from one configuration in α alone, and others in η alone.",
)
