"""Tab of the curvature page: how much flatter the loss is in LoRA coordinates, against α."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboard.components.parts import table
from dashboard.figures.style import Theme, number
from dashboard.figures.suppression import NO_PAIR, suppression_figure
from dashboard.tab import Plot, Tab, Words
from dashboard.tabs.probes import read_curvature, reasons, step_name, step_of
from lora_alpha.wire.analysis import Curvature

ABOUT = (
    "Below 1 the loss is flatter in LoRA coordinates than in full-weight ones: steps there can be larger. "
    "★ where both are equally sharp, | where a generic sharpest direction would be: √(3·in·r)."
)


def draw(found: Curvature, view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """The ratios, what is missing, and the crossings as a table."""
    plot = suppression_figure(found.suppression, colours, step=step_of(found, view))
    rows = [
        [
            curve.method,
            str(curve.rank),
            "–" if curve.step == 0 else number(curve.lr),
            step_name(curve.step),
            number(_rounded(curve.crossing)),
            number(_rounded(curve.predicted)),
            "–" if curve.crossing is None else f"{curve.crossing / curve.predicted:.2f}",
            "–" if curve.slope is None else f"{curve.slope:.2f}",
            str(curve.in_features),
            curve.reason,
        ]
        for curve in found.suppression
    ]
    headings = ["method", "r", "η", "at", "equal at α", "√(3·in·r)", "ratio", "slope", "in", ""]
    return plot, [*reasons(found, of_rates=False), table(headings, rows) if rows else ""]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


TAB = Tab(
    page="curvature",
    name="suppression",
    title="Suppression",
    reads=("step",),
    parts=(Plot("suppression-figure", about=ABOUT), Words("suppression-figure-table")),
    fetch=read_curvature,
    draw=draw,
    empty=NO_PAIR,
)
