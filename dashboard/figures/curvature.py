"""λ_max and λ_min in LoRA coordinates beside full-weight coordinates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from dashboard.figures.bands import log_ticks
from dashboard.figures.style import (
    CATEGORICAL,
    DASHES,
    SYMBOLS,
    Figure,
    Theme,
    axis,
    empty,
    faded,
    layout,
    number,
    ordinal_colours,
)
from lora_alpha.methods import LORA
from lora_alpha.wire.analysis import Curvature, Sharpness

FULL = CATEGORICAL[1]
Group = tuple[float, str, str, int]
X_AXES: dict[str, tuple[str, Callable[[Sharpness], float | None]]] = {
    "s": ("scale s", lambda item: item.scale),
    "s²": ("s²", lambda item: None if item.scale is None else item.scale**2),
    "r": ("rank r", lambda item: item.rank),
    "α": ("α", lambda item: item.alpha),
}
NOTHING = "No probe in LoRA coordinates at this step has finished yet."


def steps_of(curvature: Curvature) -> list[int]:
    """Steps at which anything was probed."""
    return sorted({point.step for point in curvature.points})


def layers_of(curvature: Curvature) -> list[str]:
    """Layers that were probed singly."""
    return sorted({point.layer for point in curvature.points if point.layer})


def extremes_figure(
    points: Sequence[Sharpness], theme: Theme, *, x: str, step: int, layer: str = ""
) -> Figure:
    """Two panels, λ_max above and -λ_min below, log-log; full weights as lines across.

    Args:
        points: Finished probes.
        theme: Colours.
        x: ``s``, ``s²``, ``r`` or ``α``.
        step: Only points at this step.
        layer: Only this layer; all layers together by default.
    """
    title, position = X_AXES[x]
    shown = [point for point in points if point.step == step and point.layer == layer]
    lora = [point for point in shown if point.space == "lora" and (position(point) or 0) > 0]
    if not lora:
        return empty(theme, NOTHING, height=520)
    full = [point for point in shown if point.space == "full"]
    groups = sorted({_group(point, x) for point in lora})
    colours = ordinal_colours([group[0] for group in groups])
    data: list[dict[str, Any]] = []
    for sign, place in ((1.0, {}), (-1.0, {"xaxis": "x2", "yaxis": "y2"})):
        for index, group in enumerate(groups):
            mine = [point for point in lora if _group(point, x) == group]
            style = _style(index, groups, colours, x)
            data += _curve(mine, position, sign, style, show=sign > 0, place=place)
        span = [position(point) or 1.0 for point in lora]
        data += _full(full, (min(span), max(span)), sign, show=sign > 0, place=place)
    sizes = [abs(v) for point in shown for v in (point.lambda_max, point.lambda_min) if v]
    ticks = log_ticks(sizes)
    lower_axis = axis(theme, title, log=True, domain=[0, 1], anchor="y2")
    figure_layout = layout(
        theme,
        x={**axis(theme, "", log=True, anchor="y"), "matches": "x2", "showticklabels": False},
        y=axis(theme, "λ_max", log=True, domain=[0.54, 1], dtick=ticks),
        height=520,
        hovermode="closest",
    )
    figure_layout["xaxis2"] = lower_axis
    figure_layout["yaxis2"] = axis(
        theme, "−λ_min", log=True, domain=[0, 0.46], anchor="x2", autorange="reversed", dtick=ticks
    )
    return {"data": data, "layout": figure_layout}


def _group(point: Sharpness, x: str) -> Group:
    """One line each: by rank (by α where the rank is the axis), method, workload and width."""
    value = (point.alpha or 0.0) if x == "r" else float(point.rank or 0)
    return (value, point.method, point.workload, point.in_features)


def _style(index: int, groups: Sequence[Group], colours: dict[Any, str], x: str) -> dict[str, Any]:
    value, method, workload, width = groups[index]
    parts = [f"α {number(value)}" if x == "r" else f"r {number(value)}"]
    parts += [method] if method != LORA.name else []
    parts += [workload] if len({group[2] for group in groups}) > 1 else []
    parts += [f"in {width}"] if len({group[3] for group in groups}) > 1 else []
    return {
        "name": ", ".join(["LoRA", *parts]),
        "line": {"color": colours[value], "width": 2, "dash": _dash(groups[index], groups)},
        "marker": {"color": colours[value], "size": 7, "symbol": SYMBOLS[index % len(SYMBOLS)]},
    }


def _dash(group: Group, groups: Sequence[Group]) -> str:
    others = sorted({other[1:] for other in groups})
    return DASHES[others.index(group[1:]) % len(DASHES)]


def _curve(
    points: Sequence[Sharpness],
    position: Callable[[Sharpness], float | None],
    sign: float,
    style: dict[str, Any],
    *,
    show: bool,
    place: dict[str, str],
) -> list[dict[str, Any]]:
    by_x: dict[float, list[float]] = {}
    for point in points:
        value, x = _signed(point, sign), position(point)
        if value is not None and value > 0 and x is not None:
            by_x.setdefault(x, []).append(value)
    if not by_x:
        return []
    ordered = sorted(by_x.items())
    means = [statistics.fmean(values) for _, values in ordered]
    name = "λ_max" if sign > 0 else "λ_min"
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [x for x, _ in ordered],
            "y": means,
            "error_y": {
                "type": "data",
                "array": [statistics.stdev(v) if len(v) > 1 else 0 for _, v in ordered],
                "thickness": 1,
                "width": 3,
            },
            "legendgroup": style["name"],
            "showlegend": show,
            "customdata": [[sign * mean, len(v)] for mean, (_, v) in zip(means, ordered, strict=True)],
            "hovertemplate": f"{style['name']}<br>%{{x:.4g}}: {name} %{{customdata[0]:.4g}}"
            "<br>%{customdata[1]} probes<extra></extra>",
            **style,
            **place,
        }
    ]


def _full(
    points: Sequence[Sharpness],
    span: tuple[float, float],
    sign: float,
    *,
    show: bool,
    place: dict[str, str],
) -> list[dict[str, Any]]:
    """One line at the mean over all points, with the range they span as a band."""
    values = [value for point in points if (value := _signed(point, sign)) is not None and value > 0]
    if not values:
        return []
    mean, low, high = statistics.fmean(values), min(values), max(values)
    name = "λ_max" if sign > 0 else "λ_min"
    wide = (span[0] / 1.2, span[1] * 1.2)
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "full weights",
        "legendgroup": "full",
        "showlegend": show,
        "x": list(wide),
        "y": [mean, mean],
        "line": {"color": FULL, "width": 2.5, "dash": DASHES[1]},
        "hovertemplate": f"full weights<br>{name} {sign * mean:.4g} ({sign * low:.4g} to {sign * high:.4g}, "
        f"{len(values)} probes)<extra></extra>",
        **place,
    }
    if high / low < 1.01:
        return [line]
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [wide[0], wide[1], wide[1], wide[0]],
        "y": [low, low, high, high],
        "fill": "toself",
        "fillcolor": faded(FULL, 0.12),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        **place,
    }
    return [band, line]


def _signed(point: Sharpness, sign: float) -> float | None:
    if sign > 0:
        return point.lambda_max
    return None if point.lambda_min is None else -point.lambda_min
