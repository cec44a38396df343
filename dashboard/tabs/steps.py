"""Tab of the dynamics page: one metric over steps for every configuration of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash.development.base_component import Component

from dashboard.components.parts import behind, note, table
from dashboard.controls import axis_filters, choice, run_filters, switch
from dashboard.figures.dynamics import METRICS, over_steps_figure, short_names, twin_of
from dashboard.figures.style import Theme, number
from dashboard.tab import Plot, Tab, Words
from dashboard.tabs.convergence import grouping, too_many
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curves

COLOURS = ["alpha", "lr", "rank", "scale", "method", "lr_ratio", "alpha_schedule", "seed"]
EXTRA = ["train_loss", "eval_loss", "grad_norm", "scale"]
POINTS = 250
MAX_CURVES = 300


def fetch(client: Client, view: Mapping[str, Any]) -> Curves:
    """Curves of the metric."""
    return client.curves(
        view["sweep"], metric=view["metric"], points=POINTS, group_by=grouping(view), **run_filters(view)
    )


def draw(curves: Curves, view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """Figure, what to mind, table."""
    drawn = curves.model_copy(update={"curves": curves.curves[:MAX_CURVES]})
    plot = over_steps_figure(drawn, colours, colour_by=view["colour"], log_y=view["axis_scale"] == "log")
    parts: list[Component] = too_many(curves, MAX_CURVES)
    pairs = len(twin_of(drawn.curves))
    if pairs:
        text = f"{pairs} of {len(drawn.curves)} curves lie exactly on another: dashed, with open circles."
        parts.append(note("Identical curves", text, colour="teal"))
    return plot, [*parts, behind("Table: last value of each curve", _table(curves))]


def metric_options(*names: str) -> list[dict[str, str]]:
    """Metrics to choose from, as people read them."""
    return [{"value": name, "label": name.replace("_", " ")} for name in dict.fromkeys(names)]


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


TAB = Tab(
    page="dynamics",
    name="steps",
    title="Over steps",
    controls=(
        choice("metric", "Metric", "drift_ratio", metric_options(*METRICS, *EXTRA)),
        choice("colour", "Colour by", "alpha", COLOURS, renamed={"schedule": "alpha_schedule"}),
        switch("seeds", "Seeds", "collapsed", ["collapsed", "each"]),
        switch("axis_scale", "Value axis", "log", ["log", "linear"], was="axis"),
        *axis_filters(),
    ),
    parts=(Plot("dynamics-steps", height=480), Words("dynamics-steps-table")),
    fetch=fetch,
    draw=draw,
)
