"""Tab of a sweep: any metric over steps, one curve a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import html

from dashboard import ids
from dashboard.components.parts import note, table
from dashboard.controls import axis_filters, choice, run_filters, switch
from dashboard.figures.convergence import NOTHING, ConvergenceView, convergence_figure, curve_name
from dashboard.figures.style import Theme, number
from dashboard.tab import Part, Plot, Tab, Words
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curves

COLOURS = ["rank", "alpha", "scale", "lr", "method", "alpha_schedule", "seed"]
POINTS = 300
MAX_CURVES = 400


def fetch(client: Client, view: Mapping[str, Any]) -> tuple[Curves, str]:
    """Curves of the metric, and what the loss measures."""
    curves = client.curves(
        view["sweep"],
        metric=view["metric"],
        points=POINTS,
        group_by=grouping(view),
        **run_filters(view),
    )
    return curves, client.sweep(view["sweep"]).metric_label


def draw(found: tuple[Curves, str], view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """Figure, table, and the metrics to choose from."""
    curves, label = found
    shown = ConvergenceView(
        colour_by=view["colour"],
        log_x=view["steps"] == "log",
        log_y=view["axis_scale"] == "log",
        smoothing=float(view["smooth"]),
    )
    first = curves.model_copy(update={"curves": curves.curves[:MAX_CURVES]})
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
    content = html.Div([*too_many(curves, MAX_CURVES), content])
    metrics = _metrics(*curves.metrics, view["metric"])
    return convergence_figure(first, shown, colours, label=label), content, metrics


def grouping(view: Mapping[str, Any]) -> str:
    """Whether seeds are taken together: not where they are to be told apart."""
    return "cell" if view["seeds"] == "collapsed" and view["colour"] != "seed" else "run"


def too_many(curves: Curves, most: int) -> list[Any]:
    """That not all curves are drawn."""
    if len(curves.curves) <= most:
        return []
    return [
        note("Mind", f"{len(curves.curves)} curves: the first {most} are drawn. Filter, or collapse seeds.")
    ]


def _metrics(*names: str) -> list[str]:
    return sorted({"eval_loss", "train_loss", *names})


TAB = Tab(
    page="sweep",
    name="convergence",
    title="Convergence",
    controls=(
        choice("metric", "Metric", "eval_loss", _metrics(), grows=True),
        choice("colour", "Colour by", "rank", COLOURS, renamed={"schedule": "alpha_schedule"}),
        switch("seeds", "Seeds", "collapsed", ["collapsed", "each"]),
        switch("axis_scale", "Value axis", "log", ["log", "linear"], was="scale"),
        switch("steps", "Step axis", "linear", ["linear", "log"]),
        choice("smooth", "Smoothing", "0", ["0", "0.5", "0.8", "0.9", "0.97"]),
        *axis_filters(),
    ),
    parts=(
        Plot("convergence-figure", height=520),
        Words("convergence-table", folded="Table: last value of each curve"),
        Part(ids.control("sweep", "metric"), "data"),
    ),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
)
