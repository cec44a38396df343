"""Tab of the dynamics page: one metric over steps for every configuration of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dash import Dash, Output, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, figure, note, select, several, switch, table
from dashboard.connection import Connect
from dashboard.figures.dynamics import METRICS, over_steps_figure, short_names, twin_of
from dashboard.figures.style import empty, number, theme
from dashboard.views import draw_tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.sweeps import Curves, Sweep

DEFAULTS: dict[str, Any] = {
    "metric": "drift_ratio",
    "colour": "alpha",
    "seeds": "collapsed",
    "axis": "log",
    "methods": [],
    "ranks": [],
    "alphas": [],
    "lrs": [],
}
COLOURS = ["alpha", "lr", "rank", "scale", "method", "lr_ratio", "alpha_schedule", "seed"]
EXTRA = ["train_loss", "eval_loss", "grad_norm", "scale"]
MAX_CURVES = 300


def panel(sweep: Sweep, view: Mapping[str, Any]) -> Component:
    """Controls, plot and table."""
    metrics = [{"value": name, "label": name.replace("_", " ")} for name in dict.fromkeys([*METRICS, *EXTRA])]
    return html.Div(
        [
            html.Div(
                [
                    select(ids.dynamics("metric"), "Metric", view["metric"], metrics),
                    select(ids.dynamics("colour"), "Colour by", view["colour"], COLOURS),
                    switch(ids.dynamics("seeds"), "Seeds", view["seeds"], ["collapsed", "each"]),
                    switch(ids.dynamics("axis"), "Value axis", view["axis"], ["log", "linear"]),
                    *axis_filters(sweep.spec, view),
                ],
                className="controls",
            ),
            figure(ids.DYNAMICS_STEPS, height=480),
            html.Div(id=f"{ids.DYNAMICS_STEPS}-table"),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """The tab's callback."""
    draw_tab(
        app,
        "steps",
        [
            Output(ids.DYNAMICS_STEPS, "figure"),
            Output(f"{ids.DYNAMICS_STEPS}-table", "children"),
        ],
        pulse=ids.DYNAMICS_PULSE,
        view=ids.DYNAMICS_VIEW,
        draw=partial(_draw, connect),
    )


def axis_filters(spec: Mapping[str, Any], view: Mapping[str, Any]) -> list[Component]:
    """A choice of values for each axis that varies, explicit cells included."""
    cells = spec.get("cells", [])
    axes = (("methods", "method", "Methods"), ("ranks", "rank", "Ranks"), ("alphas", "alpha", "α"))
    filters = []
    for name, key, label in (*axes, ("lrs", "lr", "η")):
        # A sweep of explicit cells alone still carries the workload's axes, which it does not train.
        grid = spec[name] if spec["methods"] else []
        values = sorted({*grid, *(cell[key] for cell in cells if cell.get(key) is not None)})
        if len(values) > 1:
            data = [
                {"value": _key(value), "label": value if isinstance(value, str) else number(value)}
                for value in values
            ]
            filters.append(several(ids.dynamics(name), label, view[name], data))
    return filters


def run_filters(view: Mapping[str, Any]) -> dict[str, Any]:
    """The filters of the address as the API wants them."""
    return {
        "method": view["methods"] or None,
        "rank": [int(rank) for rank in view["ranks"]] or None,
        "alpha": [float(alpha) for alpha in view["alphas"]] or None,
        "lr": [float(lr) for lr in view["lrs"]] or None,
    }


def _draw(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    group = "cell" if view["seeds"] == "collapsed" and view["colour"] != "seed" else "run"
    try:
        with connect() as client:
            curves = client.curves(
                view["sweep"], metric=view["metric"], points=250, group_by=group, **run_filters(view)
            )
    except LoraAlphaError as error:
        return empty(colours, str(error), height=480), no_update
    drawn = Curves(
        metric=curves.metric,
        metrics=curves.metrics,
        curves=curves.curves[:MAX_CURVES],
        last_step=curves.last_step,
    )
    plot = over_steps_figure(drawn, colours, colour_by=view["colour"], log_y=view["axis"] == "log")
    parts: list[Component] = []
    if len(curves.curves) > MAX_CURVES:
        text = f"{len(curves.curves)} curves: the first {MAX_CURVES} are drawn. Filter, or collapse seeds."
        parts.append(note("Mind", text))
    pairs = len(twin_of(drawn.curves))
    if pairs:
        text = f"{pairs} of {len(drawn.curves)} curves lie exactly on another: dashed, with open circles."
        parts.append(note("Identical curves", text, colour="teal"))
    return plot, [*parts, behind("Table: last value of each curve", _table(curves))]


def _table(curves: Curves) -> Component:
    rows = []
    for name, curve in zip(short_names(curves.curves), curves.curves, strict=True):
        known = [value for value in curve.value if value is not None]
        if not known:
            continue
        rows.append(
            [
                name,
                str(len(curve.run_ids)),
                str(int(curve.step[-1])),
                number(curve.value[-1]),
                number(curve.std[-1]) if curve.std else "",
                number(sum(known) / len(known)),
                number(max(known)),
                "some" if curve.diverged else "",
            ]
        )
    headings = ["configuration", "runs", "step", "last", "std", "mean over steps", "largest", "diverged"]
    return table(headings, rows)


def _key(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"
