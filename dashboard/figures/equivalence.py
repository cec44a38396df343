"""α against η: paired differences with intervals, and loss against candidate coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dashboard.figures.style import (
    CATEGORICAL,
    SYMBOLS,
    Figure,
    Theme,
    axis,
    empty,
    faded,
    layout,
    ordinal_colours,
    value_axis,
)
from lora_alpha.metrics import EVAL_LOSS
from lora_alpha.wire.analysis import Collapse, CollapseScore, Equivalence

NOTHING = "No cell has finished yet."
BEST, FITTED = "best", "fitted"
EQUAL_FLOORS, MEASURED_FLOORS = "made equal", "as measured"


def routes_figure(items: Sequence[Equivalence], theme: Theme) -> Figure:
    """Relative difference of the two routes at each rank; below 0 the α route is better."""
    known = [item for item in items if item.difference is not None]
    if not known:
        return empty(
            theme, "Needs at least two α and two η on the grid, and two seeds in common.", height=340
        )
    margin = known[0].margin
    data: list[dict[str, Any]] = []
    for index, method in enumerate(dict.fromkeys(item.method for item in known)):
        mine = [item for item in known if item.method == method]
        y = [item.difference or 0.0 for item in mine]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": method,
                "x": [_place(item) for item in mine],
                "y": y,
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_beyond(item.high, value) for item, value in zip(mine, y, strict=True)],
                    "arrayminus": [_beyond(item.low, value) for item, value in zip(mine, y, strict=True)],
                    "width": 6,
                },
                "marker": {"size": 11, "symbol": SYMBOLS[index], "color": CATEGORICAL[index]},
                "hovertext": [item.reason for item in mine],
                "hoverinfo": "text",
            }
        )
    band = {
        "type": "rect",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": -margin,
        "y1": margin,
        "fillcolor": faded(CATEGORICAL[2], 0.15),
        "line": {"width": 0},
        "layer": "below",
    }
    y_axis = axis(theme, "α route − η route, share", tickformat="+.1%")
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, "", type="category"),
            y={**y_axis, "zeroline": True},
            height=340,
            shapes=[band],
        ),
    }


def _place(item: Equivalence) -> str:
    return f"r {item.rank}" + ("" if item.lr_ratio == 1 else f", lr ratio {item.lr_ratio:g}")


def _beyond(end: float | None, value: float) -> float | None:
    """Length of one arm of an interval; None where nothing bounds it."""
    return None if end is None else abs(end - value)


def collapse_figure(
    collapse: Collapse, theme: Theme, *, coordinate: str = BEST, floors: str = EQUAL_FLOORS
) -> Figure:
    """Loss against a coordinate, coloured by rank; ``EQUAL_FLOORS`` takes each rank's floor out."""
    shown = _shown(collapse, coordinate)
    if shown is None or not shown.points:
        return empty(theme, NOTHING, height=420)
    levels = floors == EQUAL_FLOORS and all(point.level is not None for point in shown.points)
    heights = {p: p.loss if p.level is None or not levels else p.level for p in shown.points}
    ranks = sorted({point.rank for point in shown.points})
    colours = ordinal_colours(ranks)
    lrs = sorted({point.lr for point in shown.points})
    data = []
    for rank in ranks:
        for lr in lrs:
            points = sorted(
                (point for point in shown.points if (point.rank, point.lr) == (rank, lr)),
                key=lambda point: point.x,
            )
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": f"r {rank}" + (f", η {lr:g}" if len(lrs) > 1 else ""),
                    "x": [point.x for point in points],
                    "y": [heights[point] for point in points],
                    "line": {"width": 1, "color": faded(colours[rank], 0.5)},
                    "marker": {
                        "color": colours[rank],
                        "symbol": SYMBOLS[lrs.index(lr) % len(SYMBOLS)],
                        "size": 7,
                    },
                    "hovertemplate": f"r {rank}, η {lr:g}<br>%{{x:.3g}}: %{{y:.4g}}<extra></extra>",
                }
            )
    score = "" if shown.score is None else f" (score {shown.score:.2f})"
    title = "loss" if collapse.metric == EVAL_LOSS else collapse.metric.title
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, f"{shown.coordinate}{score}", log=True),
            y=value_axis(
                theme, f"{title}, floors of ranks made equal" if levels else title, heights.values()
            ),
            height=420,
            hovermode="closest",
        ),
    }


def _shown(collapse: Collapse, coordinate: str) -> CollapseScore | None:
    """The named coordinate, or the fitted one, of the first method that has it; else the best."""
    fitted = [fit.fitted for fit in collapse.fits if fit.fitted is not None]
    if coordinate == FITTED and fitted:
        return fitted[0]
    named = [item for item in collapse.items if item.coordinate == coordinate]
    return max(named or collapse.items, key=lambda i: -1e9 if i.score is None else i.score, default=None)
