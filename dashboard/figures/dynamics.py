"""Signal, drift and purity over steps, and layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dashboard.figures.bands import log_view, spread_band
from dashboard.figures.convergence import AXIS_NAMES, PLAIN
from dashboard.figures.style import (
    CATEGORICAL,
    DASHES,
    SYMBOLS,
    Figure,
    Theme,
    axis,
    empty,
    layout,
    number,
    ordinal_colours,
)
from lora_alpha.wire.sweeps import Curve, Curves

METRICS = {
    "drift_ratio": "drift ratio ‖drift‖ / ‖signal‖",
    "purity": "purity cos(δW, −G)",
    "signal_norm": "signal ‖s(δB·A + B·δA)‖",
    "drift_norm": "drift ‖s·δB·δA‖",
    "update_norm": "update ‖W − W0‖",
    "rel_change_A": "‖A − A0‖ / ‖A0‖",
    "stable_rank": "stable rank of the update",
    "scale": "scale s",
}
SIGNED = {"purity"}  # no log axis
NOTHING = "No per-layer values recorded for this choice."
LEGEND_LINES = 14  # more lines than this are named by colour alone
TILES = [[0.0, "#2a1a5e"], [0.25, "#365c8d"], [0.5, "#1fa187"], [0.75, "#8fd744"], [1.0, "#fde725"]]


def metric_title(metric: str) -> str:
    """The axis title of a metric, of a layer's too."""
    name, _, part = metric.partition("/")
    return METRICS.get(name, name.replace("_", " ")) + (f", layer {part}" if part else "")


def over_steps_figure(curves: Curves, theme: Theme, *, colour_by: str, log_y: bool) -> Figure:
    """Every curve of one metric; identical curves are drawn so that each can be seen under the other."""
    lines = sorted(
        (curve for curve in curves.curves if any(value is not None for value in curve.value)), key=_order
    )
    if not lines:
        return empty(theme, f"No {metric_title(curves.metric)} recorded yet.", height=480)
    log_y = log_y and curves.metric.partition("/")[0] not in SIGNED
    names = short_names(lines)
    twins = twin_of(lines)
    few = len(lines) <= LEGEND_LINES
    groups = [curve.labels.get(colour_by, "all") for curve in lines]
    colours = ordinal_colours(sorted(set(groups), key=_sortable))
    dashes = _dashes(lines, colour_by)
    data: list[dict[str, Any]] = []
    named: set[Any] = set()
    for index, curve in enumerate(lines):
        colour = colours[groups[index]]
        if len(lines) <= 24 and index not in twins:
            data += spread_band(curve, colour, log_y=log_y)
        data.append(_line(curve, names, index, twins, colour, dash=dashes[index], log_y=log_y))
        data[-1] |= _legend(names, index, twins, groups[index], few=few, seen=named, diverged=curve.diverged)
        named.add(groups[index])
    figure_layout = layout(
        theme,
        x=axis(theme, "optimiser step"),
        y=axis(theme, metric_title(curves.metric), log=log_y, **(log_view(lines) if log_y else {})),
        height=480,
        hovermode="closest",
    )
    if not few:
        figure_layout["legend"] |= {"title": {"text": AXIS_NAMES.get(colour_by, colour_by) or colour_by}}
    return {"data": data, "layout": figure_layout}


def twin_of(curves: Sequence[Curve]) -> dict[int, int]:
    """Curves that lie exactly on an earlier one: their place → the earlier one's place."""
    first: dict[tuple[Any, ...], int] = {}
    twins = {}
    for index, curve in enumerate(curves):
        original = first.setdefault((tuple(curve.step), tuple(curve.value)), index)
        if original != index:
            twins[index] = original
    return twins


def short_names(curves: Sequence[Curve]) -> list[str]:
    """Names made of the labels in which these curves differ."""
    varying = [
        name
        for name in AXIS_NAMES
        if name != "scale" and len({curve.labels.get(name) for curve in curves}) > 1
    ]
    return [_name(curve, varying) for curve in curves]


def layer_figure(
    rows: Mapping[str, Sequence[float | None]],
    columns: Sequence[str] | Sequence[float],
    theme: Theme,
    *,
    metric: str,
    across: str,
) -> Figure:
    """Layers down, steps or configurations across, colour the metric; gaps are what was not recorded.

    Args:
        rows: Layer → one value a column.
        columns: Steps, or names of configurations.
        theme: Colours.
        metric: Without its layer.
        across: Title of the horizontal axis.
    """
    values = [value for row in rows.values() for value in row if value is not None]
    if not values:
        return empty(theme, NOTHING, height=360)
    log = metric not in SIGNED and min(values) >= 0 and max(values) > 0
    floor = min((value for value in values if value > 0), default=1.0) if log else 0.0
    names = list(rows)

    def shade(value: float | None) -> float | None:
        if value is None:
            return None
        return math.log10(max(value, floor)) if log else value

    shades = [[shade(value) for value in row] for row in rows.values()]
    known = [value for row in shades for value in row if value is not None]
    low, high = min(known), max(known)
    ticks = [low + (high - low) * share for share in (0, 0.25, 0.5, 0.75, 1)] if high > low else [low]
    horizontal = axis(theme, across, showgrid=False)
    if columns and isinstance(columns[0], str):
        horizontal["type"] = "category"
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(columns),
                "y": names,
                "z": shades,
                "customdata": [[number(value) for value in row] for row in rows.values()],
                "hovertemplate": f"layer %{{y}}<br>{across} %{{x}}<br>%{{customdata}}<extra></extra>",
                "colorscale": TILES,
                "xgap": 1 if len(columns) <= 60 else 0,
                "ygap": 2,
                "colorbar": {
                    "title": {"text": metric_title(metric), "side": "right", "font": {"size": 12}},
                    "tickvals": ticks,
                    "ticktext": [number(float(f"{10**tick if log else tick:.2g}")) for tick in ticks],
                    "thickness": 12,
                    "outlinewidth": 0,
                },
            }
        ],
        "layout": layout(
            theme,
            x=horizontal,
            y=axis(theme, "layer", type="category", autorange="reversed", showgrid=False),
            height=max(260, min(900, 130 + 26 * len(names))),
        ),
    }


def _line(
    curve: Curve,
    names: Sequence[str],
    index: int,
    twins: Mapping[int, int],
    colour: str,
    *,
    dash: str,
    log_y: bool,
) -> dict[str, Any]:
    twin = index in twins
    every = max(1, len(curve.step) // 12)
    value = [v if v is None or not log_y or v > 0 else None for v in curve.value]
    hover = f"<b>{names[index]}</b><br>step %{{x}}: %{{y:.4g}}<br>{len(curve.run_ids)} runs"
    if twin:
        hover += f"<br>exactly equal to {names[twins[index]]}"
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": curve.step,
        "y": value,
        "connectgaps": False,
        "line": {"color": colour, "width": 1.9, "dash": dash},
        "opacity": 0.6 if curve.diverged else 1.0,
        "marker": {
            "color": colour,
            "symbol": SYMBOLS[index % len(SYMBOLS)],
            "size": 6,
            "maxdisplayed": max(2, len(curve.step) // every),
        },
        "hovertemplate": hover + ("<br>some diverged" if curve.diverged else "") + "<extra></extra>",
    }
    if twin:
        # On top of its equal: a thin dashed line in another colour, with open markers around the other's.
        contrast = CATEGORICAL[1] if colour != CATEGORICAL[1] else CATEGORICAL[0]
        line["line"] = {"color": contrast, "width": 2.4, "dash": DASHES[2]}
        line["marker"] |= {"color": contrast, "symbol": "circle-open", "size": 11, "line": {"width": 1.8}}
    return line


def _legend(
    names: Sequence[str],
    index: int,
    twins: Mapping[int, int],
    group: Any,
    *,
    few: bool,
    seen: set[Any],
    diverged: bool,
) -> dict[str, Any]:
    if few:
        twin = f" (= {names[twins[index]]})" if index in twins else ""
        return {"name": names[index] + twin + (" ✕" if diverged else "")}
    shown = number(group) if isinstance(group, int | float) else str(group)
    return {"name": shown, "legendgroup": shown, "showlegend": group not in seen}


def _order(curve: Curve) -> tuple[Any, ...]:
    """Plain configurations first, so that it is the special one that equals a plain one."""
    labels = curve.labels
    plain = [_sortable(labels.get(name) or "") for name in ("lr_ratio", "method", "rank", "lr", "alpha")]
    return (labels.get("alpha_schedule", "constant") != "constant", *plain)


def _dashes(curves: Sequence[Curve], colour_by: str) -> list[str]:
    """A dash for each value of the axis, other than the colour's, that varies most."""
    values = {
        name: sorted({curve.labels.get(name) for curve in curves}, key=_sortable)
        for name in AXIS_NAMES
        if name not in (colour_by, "scale", "seed")
    }
    name = max(values, key=lambda axis_name: len(values[axis_name]))
    return [DASHES[values[name].index(curve.labels.get(name)) % len(DASHES)] for curve in curves]


def _name(curve: Curve, varying: Sequence[str]) -> str:
    parts = []
    for name in varying:
        value = curve.labels.get(name)
        if value is None or (name, value) in PLAIN:
            continue
        shown = number(value) if isinstance(value, int | float) else str(value)
        parts.append(f"{AXIS_NAMES[name]} {shown}".strip())
    return ", ".join(parts) or "all runs"


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))
