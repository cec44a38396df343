"""λ_LoRA/λ_full against α, and the best η against 1/λ_max."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from dashboard.figures.curvature import FULL
from dashboard.figures.style import (
    SYMBOLS,
    Figure,
    Theme,
    axis,
    empty,
    layout,
    number,
    ordinal_colours,
)
from lora_alpha.wire.analysis import Curvature, Suppression

NO_PAIR = "Needs probes in both spaces at the same point, for at least one α."
NO_RATE = "Needs a best η (three learning rates at one rank and α) and probes at the start."


def suppression_figure(curves: Sequence[Suppression], theme: Theme, *, step: int) -> Figure:
    """λ_LoRA/λ_full against α; the crossing of 1 beside √(3·in·r)."""
    shown = [curve for curve in curves if curve.step == step]
    if not shown:
        return empty(theme, NO_PAIR, height=440)
    ranks = sorted({curve.rank for curve in shown})
    colours = ordinal_colours(ranks)
    data: list[dict[str, Any]] = []
    for curve in shown:
        colour = colours[curve.rank]
        name = ", ".join([f"r {curve.rank}", *_apart(curve, shown)])
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "legendgroup": str(curve.rank),
                "x": [point.alpha for point in curve.points],
                "y": [point.ratio for point in curve.points],
                "line": {"color": colour, "width": 2},
                "marker": {"color": colour, "size": 7, "symbol": SYMBOLS[ranks.index(curve.rank)]},
                "customdata": [point.num_pairs for point in curve.points],
                "hovertemplate": f"{name}<br>α %{{x}}: ratio %{{y:.3g}}"
                "<br>%{customdata} pairs of probes<extra></extra>",
            }
        )
        data += _crossing(curve, colour, theme)
    data += _at_rank(shown, theme)
    one = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 1,
        "y1": 1,
        "line": {"color": theme.muted, "width": 1.5, "dash": "dash"},
    }
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, "α", log=True),
            y=axis(theme, "λ_max LoRA / λ_max full", log=True),
            height=440,
            shapes=[one],
            hovermode="closest",
        ),
    }


def _apart(curve: Suppression, among: Sequence[Suppression]) -> list[str]:
    """What else tells this curve from the others."""
    parts = []
    for name in ("method", "workload", "in_features"):
        if len({getattr(other, name) for other in among}) > 1:
            value = getattr(curve, name)
            parts.append(f"in {value}" if name == "in_features" else str(value))
    return parts


def rates_figure(curvature: Curvature, theme: Theme) -> Figure:
    """The best η against 1/λ_max in LoRA coordinates at the start, beside the slope of 1."""
    if not curvature.rates:
        return empty(theme, NO_RATE, height=400)
    ranks = sorted({rate.rank for rate in curvature.rates})
    colours = ordinal_colours(ranks)
    data: list[dict[str, Any]] = []
    for rank in ranks:
        mine = [rate for rate in curvature.rates if rate.rank == rank]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"r {rank}",
                "x": [1 / rate.lambda_max for rate in mine],
                "y": [rate.lr for rate in mine],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [(rate.lr_high or rate.lr) - rate.lr for rate in mine],
                    "arrayminus": [rate.lr - (rate.lr_low or rate.lr) for rate in mine],
                    "thickness": 1,
                    "width": 0,
                },
                "marker": {
                    "color": colours[rank],
                    "size": 10,
                    "symbol": [
                        SYMBOLS[ranks.index(rank)] + ("-open" if rate.censored else "") for rate in mine
                    ],
                },
                "hovertext": [
                    f"r {rate.rank}, α {number(rate.alpha)}<br>λ_max {number(rate.lambda_max)}, "
                    f"best η {number(rate.lr)}" + (f"<br>{rate.censored}" if rate.censored else "")
                    for rate in mine
                ],
                "hoverinfo": "text",
            }
        )
    data.append(_slope_one(curvature))
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, "1 / λ_max, LoRA coordinates, step 0", log=True),
            y=axis(theme, "best η", log=True),
            height=400,
            hovermode="closest",
        ),
    }


def _crossing(curve: Suppression, colour: str, theme: Theme) -> list[dict[str, Any]]:
    common = {"type": "scatter", "mode": "markers", "legendgroup": str(curve.rank), "showlegend": False}
    marks = [
        {
            **common,
            "x": [curve.predicted],
            "y": [1],
            "marker": {"symbol": "line-ns", "size": 22, "line": {"width": 2.5, "color": colour}},
            "hovertemplate": f"√(3·in·r) = {curve.predicted:.3g} at r {curve.rank}, "
            f"in {curve.in_features}<extra></extra>",
        }
    ]
    if curve.crossing is not None:
        slope = "" if curve.slope is None else f", slope {curve.slope:.2f}"
        marks.append(
            {
                **common,
                "x": [curve.crossing],
                "y": [1],
                "marker": {
                    "symbol": "star",
                    "size": 15,
                    "color": colour,
                    "line": {"width": 1.5, "color": theme.text},
                },
                "hovertemplate": f"equally sharp at α = {curve.crossing:.3g}, r {curve.rank}{slope}"
                "<extra></extra>",
            }
        )
    return marks


def _at_rank(curves: Sequence[Suppression], theme: Theme) -> list[dict[str, Any]]:
    """What the marks mean, for the legend."""
    marks = (
        ("star", "equally sharp", {"color": theme.muted, "size": 13}),
        ("line-ns", "√(3·in·r)", {"size": 14, "line": {"width": 2.5, "color": theme.muted}}),
    )
    needed = [mark for mark in marks if mark[0] != "star" or any(c.crossing is not None for c in curves)]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [None],
            "y": [None],
            "marker": {"symbol": symbol, **style},
        }
        for symbol, name, style in needed
    ]


def _slope_one(curvature: Curvature) -> dict[str, Any]:
    """η = c/λ_max through the points' centre."""
    inverse = [1 / rate.lambda_max for rate in curvature.rates]
    shift = statistics.fmean(
        math.log(rate.lr) - math.log(x) for rate, x in zip(curvature.rates, inverse, strict=True)
    )
    ends = [min(inverse) / 1.3, max(inverse) * 1.3]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "η ∝ 1/λ_max",
        "x": ends,
        "y": [math.exp(shift) * x for x in ends],
        "line": {"color": FULL, "dash": "dash", "width": 1.5},
        "hoverinfo": "skip",
    }
