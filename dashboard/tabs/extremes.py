"""Tab of the curvature page: λ_max and λ_min in LoRA and full-weight coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, select, table
from dashboard.controls import Control, Subject, choice, switch
from dashboard.figures.curvature import NOTHING, X_AXES, extremes_figure, layers_of, steps_of
from dashboard.figures.style import Theme, number
from dashboard.tab import Part, Plot, Tab, Words
from dashboard.tabs.probes import read_curvature, reasons, step_name, step_of
from lora_alpha.wire.analysis import Curvature, Sharpness

ALL_LAYERS = "all layers"
ABOUT = (
    "Curvature is indefinite: both ends are shown, λ_min as −λ_min in the lower panel, downwards. "
    "Points are means over seeds, with their standard deviation; the dashed line is the full weight, "
    "shaded over the range of its probes."
)


def draw(found: Curvature, view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """Both panels, what is missing, and what can be chosen."""
    layer = "" if view["layer"] == ALL_LAYERS else view["layer"]
    plot = extremes_figure(found.points, colours, x=view["x"], step=step_of(found, view), layer=layer)
    steps = [{"value": str(value), "label": step_name(value)} for value in steps_of(found) or [0]]
    layers = [ALL_LAYERS, *layers_of(found)]
    words = [*reasons(found, of_rates=False), behind("Table: extremes", _table(found.points))]
    return plot, words, steps, layers


def _table(points: Sequence[Sharpness]) -> Component:
    rows = [
        [
            point.space,
            "–" if point.rank is None else str(point.rank),
            number(point.alpha),
            number(point.scale),
            number(point.lr),
            str(point.seed),
            str(point.step),
            point.layer or ALL_LAYERS,
            _with_error(point.lambda_max, point.lambda_max_error),
            "–" if point.lambda_min is None else _with_error(point.lambda_min, point.lambda_min_error),
            point.probe_id,
        ]
        for point in points
    ]
    headings = ["space", "r", "α", "s", "η", "seed", "step", "layer", "λ_max", "λ_min", "probe"]
    return table(headings, rows)


def _with_error(value: float, error: float | None) -> str:
    return number(value) if error is None else f"{number(value)} (residual {number(error)})"


def _step(component_id: Any, value: Any, _: Subject) -> Component:
    step = {"value": value, "label": step_name(int(value) if value.isdigit() else 0)}
    return select(component_id, "At", value, [step])


TAB = Tab(
    page="curvature",
    name="extremes",
    title="λ_max and λ_min",
    controls=(
        switch("x", "Horizontal axis", "s", list(X_AXES)),
        Control(name="step", default="0", show=_step, of_sweep=True),
        choice("layer", "Layer", ALL_LAYERS, [ALL_LAYERS], of_sweep=True, grows=True),
    ),
    parts=(
        Plot("extremes-figure", height=520, about=ABOUT),
        Words("extremes-figure-table"),
        Part(ids.control("curvature", "step"), "data"),
        Part(ids.control("curvature", "layer"), "data"),
    ),
    fetch=read_curvature,
    draw=draw,
    empty=NOTHING,
)
