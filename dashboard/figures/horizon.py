"""p and C of the law against the step at which the runs are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dashboard.figures.style import CATEGORICAL, Figure, Theme, axis, empty, faded, layout
from lora_alpha.wire.analysis import Horizon, HorizonPoint

HEIGHT = 360
NOTHING = "No law at any step yet: it needs three ranks with an optimum."
MAX_BANDS = 2  # horizons


class Panel(NamedTuple):
    """One of both plots: the fields that it draws, and which axes are its own."""

    field: str
    title: str
    axes: dict[str, str]


P = Panel("exponent", "p", {"xaxis": "x", "yaxis": "y"})
C = Panel("coefficient", "C", {"xaxis": "x2", "yaxis": "y2"})


def horizon_figure(horizons: Sequence[Horizon], theme: Theme) -> Figure:
    """P beside C, each with its 95 % band; hollow points are no laws of shorter runs, or in the warm-up."""
    drawn = [horizon for horizon in horizons if _fitted(horizon)]
    if not drawn:
        return empty(theme, NOTHING, height=HEIGHT)
    data: list[dict[str, Any]] = []
    for index, horizon in enumerate(drawn):
        colour, name = CATEGORICAL[index % len(CATEGORICAL)], horizon_name(horizon, drawn)
        for panel in (P, C):
            data += _band(horizon, panel, colour) if len(drawn) <= MAX_BANDS else []
            data.append(_line(horizon, panel, colour, name, legend=panel is P and len(drawn) > 1))
    steps = sorted({point.step for horizon in drawn for point in _fitted(horizon)})
    half = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5}
    return {
        "data": data,
        "layout": layout(
            theme,
            x=_steps(theme, steps, domain=[0, 0.45]),
            y=axis(theme, "p"),
            xaxis2=_steps(theme, steps, domain=[0.57, 1], anchor="y2"),
            yaxis2=axis(theme, "C", log=True, anchor="x2"),
            height=HEIGHT,
            hovermode="closest",
            shapes=[{**half, "line": {"color": theme.line, "width": 1.2, "dash": "dash"}}],
        ),
    }


def horizon_name(horizon: Horizon, among: Sequence[Horizon]) -> str:
    """What tells this horizon from the others of the figure."""
    parts = [horizon.method] if len({other.method for other in among}) > 1 else []
    if horizon.lr_ratio != 1:
        parts.append(f"η_B/η_A {horizon.lr_ratio:g}")
    return ", ".join(parts) or "measured"


def _fitted(horizon: Horizon) -> list[HorizonPoint]:
    return [point for point in horizon.points if point.exponent is not None]


def _steps(theme: Theme, steps: Sequence[int], **more: Any) -> dict[str, Any]:
    return axis(theme, "step", log=len(steps) > 1 and steps[-1] > 4 * steps[0], **more)


def _band(horizon: Horizon, panel: Panel, colour: str) -> list[dict[str, Any]]:
    ends = [
        (point.step, getattr(point, f"{panel.field}_low"), getattr(point, f"{panel.field}_high"))
        for point in _fitted(horizon)
    ]
    known = [(step, low, high) for step, low, high in ends if low is not None and high is not None]
    if len(known) < 2:
        return []
    steps, lows, highs = (list(part) for part in zip(*known, strict=True))
    return [
        {
            "type": "scatter",
            "x": steps + steps[::-1],
            "y": highs + lows[::-1],
            "fill": "toself",
            "fillcolor": faded(colour, 0.15),
            "line": {"width": 0},
            "mode": "lines",
            "name": f"95 % of {panel.title}",
            "hoverinfo": "skip",
            "showlegend": False,
            **panel.axes,
        }
    ]


def _line(horizon: Horizon, panel: Panel, colour: str, name: str, *, legend: bool) -> dict[str, Any]:
    points = _fitted(horizon)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "showlegend": legend,
        "x": [point.step for point in points],
        "y": [getattr(point, panel.field) for point in points],
        "line": {"color": colour, "width": 2},
        "marker": {
            "color": colour,
            "size": 8,
            "symbol": ["circle-open" if _hollow(point) else "circle" for point in points],
        },
        "hovertemplate": f"{panel.title} = %{{y:.3g}} at step %{{x}}<extra></extra>",
        **panel.axes,
    }


def _hollow(point: HorizonPoint) -> bool:
    return point.decaying is not False or point.warming
