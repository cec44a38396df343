"""Tab of the curvature page: the best η against 1/λ_max at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc

from dashboard.components.parts import behind, table
from dashboard.figures.style import Theme, number
from dashboard.figures.suppression import NO_RATE, rates_figure
from dashboard.tab import Plot, Tab, Words
from dashboard.tabs.probes import read_curvature, reasons
from lora_alpha.wire.analysis import Curvature

ABOUT = (
    "One point is one (rank, α): the η with the lowest loss, and λ_max at the start, where B = 0. Open: the "
    "best η is the last one on the grid, or the last before a divergence. A preconditioned step (Adam) has "
    "no reason to follow 1/λ_max."
)


def draw(found: Curvature, _: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """The points, what is missing, the slope in a sentence, the table."""
    slope = found.rate_exponent
    sentence = (
        "Too few enclosed optima for a slope."
        if slope is None
        else f"η* ∝ (1/λ_max)^{slope:.2f} over the points here; 1 would be η* ∝ 1/λ_max."
    )
    rows = [
        [
            rate.method,
            str(rate.rank),
            number(rate.alpha),
            number(rate.lambda_max),
            number(rate.lr),
            number(rate.lr * rate.lambda_max),
            rate.censored.replace("_", " "),
        ]
        for rate in found.rates
    ]
    headings = ["method", "r", "α", "λ_max at the start", "best η", "η·λ_max", "censored"]
    parts = [dmc.Text(sentence, fw=600), behind("Table: best η", table(headings, rows))] if rows else []
    return rates_figure(found, colours), [*reasons(found, of_rates=True), *parts]


TAB = Tab(
    page="curvature",
    name="rates",
    title="Best η against 1/λ_max",
    parts=(Plot("rates-figure", height=400, about=ABOUT), Words("rates-figure-table")),
    fetch=read_curvature,
    draw=draw,
    empty=NO_RATE,
)
