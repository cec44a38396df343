"""α over time: each schedule against the best constant α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    octave_axis,
    value_axis,
    wrapped,
)
from lora_alpha.wire.analysis import Cell, ScheduleComparison, Schedules
from lora_alpha.wire.sweeps import Curves

VERDICT_COLOURS = {
    "better": CATEGORICAL[2],
    "worse": CATEGORICAL[1],
    "equivalent": CATEGORICAL[0],
    "undecided": "#868e96",
}


# What besides schedule and α tells two curves apart, and how it is called.
PLACES = {"method": "", "rank": "r", "lr": "η", "lr_ratio": "lr ratio"}


def differences_figure(schedules: Schedules, theme: Theme) -> Figure:
    """Relative difference to the best constant α with its interval; left of 0 the schedule is better."""
    known = [item for item in schedules.items if item.difference is not None]
    if not known:
        return empty(theme, "No schedule can be compared with constant α yet.", height=260)
    varying = _varying([vars(item) for item in known])
    names = [_named(vars(item), varying) for item in known]
    data = [
        _intervals([(name, item) for name, item in zip(names, known, strict=True) if item.verdict == verdict])
        for verdict in VERDICT_COLOURS
        if any(item.verdict == verdict for item in known)
    ]
    margin = schedules.margin
    band = {
        "type": "rect",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": -margin,
        "x1": margin,
        "fillcolor": faded(CATEGORICAL[2], 0.12),
        "line": {"width": 0},
        "layer": "below",
    }
    zero = {
        "type": "line",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": 0,
        "x1": 0,
        "line": {"color": theme.muted, "width": 1.5},
    }
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, "schedule − best constant α, share", tickformat="+.0%"),
            y=axis(
                theme,
                "",
                type="category",
                categoryorder="array",
                categoryarray=names[::-1],
                showgrid=False,
            ),
            height=max(240, 120 + 34 * len(known)),
            shapes=[band, zero],
            hovermode="closest",
        ),
    }


def loss_figure(cells: Sequence[Cell], theme: Theme, *, label: str) -> Figure:
    """Mean loss against the α that factor 1 stands for, one line a schedule; constant α is the bold one."""
    lines: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if cell.alpha is not None and cell.mean is not None:
            key = (cell.alpha_schedule, cell.method, cell.rank, cell.lr, cell.lr_ratio)
            lines.setdefault(key, []).append(cell)
    if not lines:
        return empty(theme, "No cell has finished yet.", height=400)
    varying = _varying([vars(members[0]) for members in lines.values()])
    styles = _styles([cell.alpha_schedule for cell in cells], theme)
    data = []
    for key in sorted(lines, key=lambda key: (list(styles).index(key[0]), str(key[1:]))):
        members = sorted(lines[key], key=lambda cell: cell.alpha or 0)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": _named(vars(members[0]), varying),
                "x": [cell.alpha for cell in members],
                "y": [cell.mean for cell in members],
                "error_y": {
                    "type": "data",
                    "array": [(cell.ci_high or cell.mean or 0) - (cell.mean or 0) for cell in members],
                    "thickness": 1,
                    "width": 3,
                },
                **styles[key[0]],
                "hovertemplate": f"{key[0]}<br>α %{{x}}: %{{y:.4g}}<extra></extra>",
            }
        )
    alphas = sorted({cell.alpha for cell in cells if cell.alpha is not None})
    return {
        "data": data,
        "layout": layout(
            theme,
            x=octave_axis(theme, "α (of factor 1)", alphas),
            y=value_axis(theme, wrapped(label), [cell.mean for cell in cells]),
            height=400,
            hovermode="closest",
        ),
    }


def scale_figure(curves: Curves, cells: Sequence[Cell], theme: Theme) -> Figure:
    """The scale over steps, one line a curve, in the colours of ``loss_figure``."""
    lines = [curve for curve in curves.curves if any(value is not None for value in curve.value)]
    if not lines:
        return empty(theme, "No scale logged yet.", height=360)
    styles = _styles([cell.alpha_schedule for cell in cells], theme)
    varying = _varying([curve.labels for curve in lines])
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{_named(curve.labels, varying)}, α {number(_float(curve.labels.get('alpha')))}",
            "x": curve.step,
            "y": curve.value,
            "hovertemplate": f"{curve.labels.get('alpha_schedule')}<br>"
            "step %{x}: s = %{y:.4g}<extra></extra>",
            **styles[str(curve.labels.get("alpha_schedule"))],
        }
        for curve in lines
    ]
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, "optimiser step"),
            y=axis(theme, "scale s", log=True),
            height=360,
            hovermode="closest",
        ),
    }


def _label(value: Any) -> str:
    return value if isinstance(value, str) else number(_float(value))


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _styles(names: Sequence[str], theme: Theme) -> dict[str, dict[str, Any]]:
    """Line and marker of each schedule, constant α first and bold."""
    order = sorted(set(names), key=lambda name: (name != "constant", name))
    styles = {}
    for place, name in enumerate(order):
        constant = name == "constant"
        colour = theme.text if constant else CATEGORICAL[(place - 1) % len(CATEGORICAL)]
        dash = DASHES[0] if constant else DASHES[1 + (place - 1) % (len(DASHES) - 1)]
        styles[name] = {
            "line": {"color": colour, "width": 3 if constant else 1.8, "dash": dash},
            "marker": {"color": colour, "size": 7, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        }
    return styles


def _intervals(pairs: Sequence[tuple[str, ScheduleComparison]]) -> dict[str, Any]:
    verdict = pairs[0][1].verdict
    x = [item.difference or 0.0 for _, item in pairs]
    colour = VERDICT_COLOURS[verdict]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": verdict,
        "x": x,
        "y": [name for name, _ in pairs],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [_beyond(item.high, value) for (_, item), value in zip(pairs, x, strict=True)],
            "arrayminus": [_beyond(item.low, value) for (_, item), value in zip(pairs, x, strict=True)],
            "color": colour,
            "thickness": 2,
            "width": 6,
        },
        "marker": {"size": 11, "color": colour},
        "hovertext": [
            f"<b>{name}</b><br>{item.reason}<br>best at α {number(item.best_alpha)}, constant at "
            f"{number(item.constant_alpha)}; {item.num_seeds} seeds; {verdict}"
            for name, item in pairs
        ],
        "hoverinfo": "text",
    }


def _beyond(end: float | None, value: float) -> float | None:
    """Length of one arm of an interval; None where nothing bounds it."""
    return None if end is None else abs(end - value)


def _varying(labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs among curves besides schedule and α."""
    return [name for name in PLACES if len({of_one.get(name) for of_one in labels}) > 1]


def _named(labels: Mapping[str, Any], varying: Sequence[str]) -> str:
    """The schedule, and where it was run as far as that varies."""
    places = [f"{PLACES[name]} {_label(labels.get(name))}".strip() for name in varying]
    return ", ".join([str(labels.get("alpha_schedule")), *places])
