"""Beneath the law of a sweep: what p and C were at earlier steps of the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash.development.base_component import Component

from dashboard.components.parts import behind, card, notes, table
from dashboard.controls import Subject, axis_values, choice
from dashboard.figures.horizon import HEIGHT, NOTHING, horizon_figure, horizon_name
from dashboard.figures.style import Theme, interval, number
from dashboard.tab import Plot, Row, Tab, Words
from dashboard.tabs.alpha_eta import READING, reading
from lora_alpha.wire.analysis import Horizon, HorizonPoint, Horizons
from lora_alpha.wire.client import Client

TITLE = "The law over the horizon"
ABOUT = (
    "α* = C·r^p of the same runs, read at earlier steps. Shaded: 95 %. Dashed: p = ½. Hollow: no law of runs "
    "of that many steps, or η still rises."
)
HEADINGS = ["step", "p", "95 %", "C", "95 %", "ranks", "censored", "seeds", "diverged", "to come", "mind"]
TEXT, TABLE = Words("horizon-text"), Words("horizon-table")
FIGURE = Plot("horizon-figure", height=HEIGHT, about=ABOUT)


def panel(_: Subject, row: Row) -> Component:
    """What it says, the plots, the table."""
    return card(row(), *TEXT.place(), *FIGURE.place(), *TABLE.place(), title=TITLE)


def fetch(client: Client, view: Mapping[str, Any]) -> Horizons:
    """The horizon of α*(r) at the chosen η."""
    chosen = view["horizon_lr"]
    return client.horizon(view["sweep"], fixed=float(chosen) if chosen else None, **reading(view))


def draw(found: Horizons, _: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """The sentences, both plots, the table."""
    horizons = found.horizons
    told = [dmc.Text(_named(horizon, horizons), size="sm", mb="xs") for horizon in horizons]
    why = [dmc.Text(reason, c="dimmed") for reason in found.reasons]
    tables = [behind(f"Table: {_title(horizon, horizons)}", _table(horizon.points)) for horizon in horizons]
    return [*told, *why, *notes(found.warnings)], horizon_figure(horizons, colours), tables


def _named(horizon: Horizon, among: Sequence[Horizon]) -> str:
    name = horizon_name(horizon, among)
    return horizon.verdict if name == "measured" else f"{name}: {horizon.verdict}"


def _title(horizon: Horizon, among: Sequence[Horizon]) -> str:
    name = horizon_name(horizon, among)
    return "the law at each step" + ("" if name == "measured" else f", {name}")


def _table(points: Sequence[HorizonPoint]) -> Component:
    return table(HEADINGS, [_row(point) for point in points])


def _row(point: HorizonPoint) -> list[Any]:
    counts = (point.num_ranks, point.num_censored, point.num_seeds, point.num_diverged, point.num_pending)
    told = [*point.reasons]
    told += ["η decays"] if point.decaying else []
    told += ["η rises"] if point.warming else []
    fitted = ["–", "", "–", ""]
    if point.exponent is not None and point.coefficient is not None:
        fitted = [
            f"{point.exponent:.2f}",
            interval(point.exponent_low, point.exponent_high, digits=2),
            number(float(f"{point.coefficient:.3g}")),
            f"{number(point.coefficient_low)} to {number(point.coefficient_high)}",
        ]
    mind = dmc.Text("; ".join(told), size="sm", style={"whiteSpace": "normal", "minWidth": 200})
    return [str(point.step), *fitted, *map(str, counts), mind]


def _lrs(subject: Subject) -> list[dict[str, str]]:
    return axis_values("lrs", "lr")(subject)


def _first_lr(subject: Subject) -> str:
    known = _lrs(subject)
    return known[0]["value"] if known else ""


TAB = Tab(
    page="sweep",
    name="horizon",
    title=TITLE,
    beneath="law",
    controls=(choice("horizon_lr", "η", _first_lr, _lrs, of_sweep=True),),
    reads=READING,
    parts=(TEXT, FIGURE, TABLE),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
    panel=panel,
)
