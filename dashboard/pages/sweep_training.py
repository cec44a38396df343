"""Tabs of a sweep that show what was measured: convergence and the α–η map."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, card, figure, note, select, several, switch, table
from dashboard.connection import Connect
from dashboard.figures.alpha_eta import map_figure, slices_figure
from dashboard.figures.convergence import ConvergenceView, convergence_figure, curve_name
from dashboard.figures.style import empty, number, theme
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import Cell
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curves, Sweep

DEFAULTS: dict[str, Any] = {
    "metric": "eval_loss",
    "colour": "rank",
    "seeds": "collapsed",
    "scale": "log",
    "steps": "linear",
    "smooth": "0",
    "methods": [],
    "ranks": [],
    "alphas": [],
    "lrs": [],
    "vertical": "",
    "map_method": "",
    "map_rank": "",
    "objective": "final",
    "at_step": "",
}
COLOURS = ["rank", "alpha", "scale", "lr", "method", "alpha_schedule", "seed"]
POINTS = 300
MAX_CURVES = 400


def convergence_panel(sweep: Sweep, view: Mapping[str, Any]) -> Component:
    """Controls, plot and table of the curves."""
    spec = sweep.spec
    return card(
        html.Div(
            [
                select(ids.view("metric"), "Metric", view["metric"], _metrics(view["metric"])),
                select(ids.view("colour"), "Colour by", view["colour"], COLOURS),
                switch(ids.view("seeds"), "Seeds", view["seeds"], ["collapsed", "each"]),
                switch(ids.view("scale"), "Value axis", view["scale"], ["log", "linear"]),
                switch(ids.view("steps"), "Step axis", view["steps"], ["linear", "log"]),
                select(ids.view("smooth"), "Smoothing", view["smooth"], ["0", "0.5", "0.8", "0.9", "0.97"]),
                *_axis_filters(spec, view),
            ],
            className="controls",
        ),
        figure(ids.CONVERGENCE, height=520),
        behind("Table: last value of each curve", html.Div(id=ids.CONVERGENCE_TABLE)),
    )


def map_panel(sweep: Sweep, view: Mapping[str, Any]) -> Component:
    """Controls, tiles and slices."""
    spec = sweep.spec
    methods = spec["methods"] or ["lora"]
    ranks = [str(rank) for rank in spec["ranks"]]
    many_lrs = len(spec["lrs"]) > 1
    vertical = view["vertical"] or ("lr" if many_lrs else "rank")
    return html.Div(
        [
            card(
                html.Div(
                    [
                        switch(ids.view("vertical"), "Vertical axis", vertical, ["lr", "rank"]),
                        select(ids.view("map_method"), "Method", view["map_method"] or methods[0], methods),
                        select(
                            ids.view("map_rank"),
                            "Rank (for α against η)",
                            view["map_rank"] or ranks[len(ranks) // 2],
                            ranks,
                        ),
                        switch(ids.view("objective"), "Loss", view["objective"], ["final", "best"]),
                        dmc.TextInput(
                            id=ids.view("at_step"),
                            label="At step (empty: the end)",
                            value=view["at_step"],
                            size="xs",
                            w=160,
                            debounce=400,
                        ),
                    ],
                    className="controls",
                ),
                figure(ids.MAP, height=460),
                dmc.Text(
                    "Measured cells only, nothing is interpolated. "
                    "Outlined: best. ✕ diverged, △ failed, ○ not finished.",
                    size="sm",
                    c="dimmed",
                ),
                title="Loss of every cell",
            ),
            card(
                figure(ids.SLICES),
                behind("Table: all cells", html.Div(id=ids.MAP_TABLE)),
                title="Loss against α, mean and 95 % interval over seeds",
            ),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of both tabs."""

    @app.callback(
        Output(ids.CONVERGENCE, "figure"),
        Output(ids.CONVERGENCE_TABLE, "children"),
        Output(ids.view("metric"), "data"),
        Input(ids.SWEEP_PULSE, "data"),
        Input(ids.SWEEP_VIEW, "data"),
        Input(ids.THEME, "data"),
        State(ids.SWEEP_ID, "data"),
    )
    async def curves(_: str, view: dict[str, Any], theme_name: str, sweep_id: str) -> Any:
        if view["tab"] != "convergence":
            return no_update, no_update, no_update
        return await asyncio.to_thread(_curves, connect, sweep_id, view, theme_name)

    @app.callback(
        Output(ids.MAP, "figure"),
        Output(ids.SLICES, "figure"),
        Output(ids.MAP_TABLE, "children"),
        Input(ids.SWEEP_PULSE, "data"),
        Input(ids.SWEEP_VIEW, "data"),
        Input(ids.THEME, "data"),
        State(ids.SWEEP_ID, "data"),
    )
    async def cells(_: str, view: dict[str, Any], theme_name: str, sweep_id: str) -> Any:
        if view["tab"] != "map":
            return no_update, no_update, no_update
        return await asyncio.to_thread(_map, connect, sweep_id, view, theme_name)


def reading(view: Mapping[str, Any]) -> dict[str, Any]:
    """The objective and step that the analysis is asked for."""
    step = str(view["at_step"])
    return {"objective": view["objective"], **({"at_step": int(step)} if step.isdigit() else {})}


def _curves(connect: Connect, sweep_id: str, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            label = client.sweep(sweep_id).metric_label
            curves = _fetch(client, sweep_id, view)
    except LoraAlphaError as error:
        return empty(colours, str(error), height=520), no_update, no_update
    shown = ConvergenceView(
        colour_by=view["colour"],
        log_x=view["steps"] == "log",
        log_y=view["scale"] == "log",
        smoothing=float(view["smooth"]),
    )
    parts = Curves(
        metric=curves.metric,
        metrics=curves.metrics,
        curves=curves.curves[:MAX_CURVES],
        last_step=curves.last_step,
    )
    rows = [
        [
            curve_name(curve),
            str(len(curve.run_ids)),
            str(int(curve.step[-1])),
            number(curve.value[-1]),
            number(curve.std[-1]) if curve.std else "",
            number(min((value for value in curve.value if value is not None), default=None)),
            "yes" if curve.diverged else "",
        ]
        for curve in curves.curves
        if curve.step
    ]
    content: Any = table(["configuration", "runs", "step", "last", "std", "lowest", "diverged"], rows)
    if len(curves.curves) > MAX_CURVES:
        many = f"{len(curves.curves)} curves: the first {MAX_CURVES} are drawn. Filter, or collapse seeds."
        content = html.Div([note("Mind", many), content])
    figure = convergence_figure(parts, shown, colours, label=label)
    return figure, content, _metrics(*curves.metrics, view["metric"])


def _fetch(client: Client, sweep_id: str, view: Mapping[str, Any]) -> Curves:
    filters: dict[str, Any] = {
        "method": view["methods"] or None,
        "rank": [int(rank) for rank in view["ranks"]] or None,
        "alpha": [float(alpha) for alpha in view["alphas"]] or None,
        "lr": [float(lr) for lr in view["lrs"]] or None,
    }
    group = "cell" if view["seeds"] == "collapsed" and view["colour"] != "seed" else "run"
    return client.curves(sweep_id, metric=view["metric"], points=POINTS, group_by=group, **filters)


def _map(connect: Connect, sweep_id: str, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            sweep = client.sweep(sweep_id)
            cells = client.cells(sweep_id, **reading(view))
    except LoraAlphaError as error:
        return empty(colours, str(error)), empty(colours, ""), no_update
    spec = sweep.spec
    method = view["map_method"] or (spec["methods"] or ["lora"])[0]
    vertical = view["vertical"] or ("lr" if len(spec["lrs"]) > 1 else "rank")
    middle = spec["ranks"][len(spec["ranks"]) // 2]
    rank = int(view["map_rank"] or middle)
    # The map is about constant α, unless there is none: cells of other schedules would lie on the same tiles.
    constant = [cell for cell in cells.cells if cell.alpha_schedule == "constant"]
    of_method = [cell for cell in constant or cells.cells if cell.method == method]
    tiles = [cell for cell in of_method if vertical == "rank" or cell.rank == rank]
    if vertical == "rank" and len(spec["lrs"]) > 1:
        tiles = [cell for cell in tiles if cell.lr == spec["lrs"][0]]
    return (
        map_figure(tiles, colours, vertical=vertical, label=sweep.metric_label),
        slices_figure(of_method, colours, label=sweep.metric_label, log_y=True),
        _cell_table(cells.cells),
    )


def _cell_table(cells: Sequence[Cell]) -> Component:
    headings = ["method", "r", "α", "s", "η", "n", "mean", "std", "95 %", "forgetting", "diverged", "failed"]
    rows = [
        [
            cell.method,
            "–" if cell.rank is None else str(cell.rank),
            number(cell.alpha),
            number(cell.scale),
            number(cell.lr),
            str(cell.n),
            number(cell.mean),
            number(cell.std),
            f"{number(cell.ci_low)} to {number(cell.ci_high)}" if cell.ci_low is not None else "–",
            number(cell.forgetting),
            str(cell.num_diverged or ""),
            str(cell.num_failed or ""),
        ]
        for cell in cells
    ]
    return table(headings, rows)


def _axis_filters(spec: Mapping[str, Any], view: Mapping[str, Any]) -> list[Component]:
    filters = []
    for name, label, values in (
        ("methods", "Methods", spec["methods"]),
        ("ranks", "Ranks", spec["ranks"]),
        ("alphas", "α", spec["alphas"]),
        ("lrs", "η", spec["lrs"]),
    ):
        data = [
            {"value": _key(value), "label": value if isinstance(value, str) else number(value)}
            for value in values
        ]
        hidden = {} if len(values) > 1 else {"display": "none"}
        filters.append(html.Div(several(ids.view(name), label, view[name], data), style=hidden))
    return filters


def _key(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"


def _metrics(*names: str) -> list[str]:
    return sorted({"eval_loss", "train_loss", *names})
