"""α×k beside η×k from one base configuration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dashboard.figures.bands import log_view, spread_band
from dashboard.figures.dynamics import SIGNED, metric_title
from dashboard.figures.style import (
    CATEGORICAL,
    Figure,
    Theme,
    axis,
    empty,
    layout,
    number,
    octave_axis,
    ordinal_colours,
    value_axis,
    wrapped,
)
from lora_alpha.wire.analysis import Cell
from lora_alpha.wire.sweeps import Curve, Curves

Route = Literal["alpha", "lr"]
ROUTES: tuple[Route, Route] = ("alpha", "lr")
COLOURS = {"alpha": CATEGORICAL[0], "lr": CATEGORICAL[1]}
NAMES = {"alpha": "α × k", "lr": "η × k"}


@dataclass(frozen=True)
class Base:
    """The configuration from which both routes start."""

    method: str
    rank: int
    alpha: float
    lr: float

    @property
    def key(self) -> str:
        """As in the page's address."""
        return f"{self.method}_{self.rank}_{self.alpha:.12g}_{self.lr:.12g}"

    @property
    def label(self) -> str:
        """As people read it."""
        return f"{self.method}, r {self.rank}, α {number(self.alpha)}, η {number(self.lr)}"


@dataclass(frozen=True)
class RoutePoint:
    """One k of one route: its cell, and the curve of the chosen metric if there is one."""

    route: Route
    k: float
    cell: Cell
    curve: Curve | None

    @property
    def typical(self) -> float | None:
        """Median of the metric over the recorded steps."""
        values = [value for value in self.curve.value if value is not None] if self.curve else []
        return statistics.median(values) if values else None


def bases(cells: Sequence[Cell]) -> list[Base]:
    """Configurations from which both routes lead somewhere, the smallest α and η first."""
    plain = _plain(cells)
    found = []
    for cell in plain:
        base = Base(cell.method, cell.rank or 0, cell.alpha or 0.0, cell.lr)
        routes = {point.route for point in route_points(cells, base) if point.k != 1}
        if routes == {"alpha", "lr"}:
            found.append(base)
    return sorted(found, key=lambda base: (base.method, base.rank, base.alpha * base.lr, base.alpha))


def route_points(cells: Sequence[Cell], base: Base, curves: Curves | None = None) -> list[RoutePoint]:
    """Cells that differ from ``base`` in α alone, then those that differ in η alone, by rising k."""
    by_key = {_curve_key(curve): curve for curve in curves.curves} if curves else {}
    found = []
    for cell in _plain(cells):
        if (cell.method, cell.rank) != (base.method, base.rank) or cell.alpha is None:
            continue
        curve = by_key.get((cell.method, cell.rank, cell.alpha, cell.lr))
        if cell.lr == base.lr:
            found.append(RoutePoint("alpha", cell.alpha / base.alpha, cell, curve))
        if cell.alpha == base.alpha:
            found.append(RoutePoint("lr", cell.lr / base.lr, cell, curve))
    return sorted(found, key=lambda point: (point.route, point.k))


def panels_figure(points: Sequence[RoutePoint], base: Base, theme: Theme, *, metric: str) -> Figure:
    """Two panels on the same axes: the metric over steps for each k of both routes."""
    drawn = [point for point in points if point.curve and point.typical is not None]
    if not drawn:
        return empty(theme, f"No {metric_title(metric)} recorded on these routes.", height=420)
    positive = all(v > 0 for p in drawn for v in (p.curve.value if p.curve else []) if v)
    log = metric not in SIGNED and positive
    factors = sorted({point.k for point in drawn})
    colours = dict(zip(factors, _spread(factors), strict=True))
    named: set[float] = set()
    data: list[dict[str, Any]] = []
    for point in drawn:
        assert point.curve is not None
        place = {"xaxis": "x2", "yaxis": "y2"} if point.route == "lr" else {}
        data += spread_band(point.curve, colours[point.k], log_y=log, **place)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": point.curve.step,
                "y": [v if v is None or not log or v > 0 else None for v in point.curve.value],
                "name": f"k = {number(point.k)}",
                "legendgroup": number(point.k),
                "legendrank": 1000 + factors.index(point.k),
                "showlegend": point.k not in named,
                "line": {
                    "color": colours[point.k],
                    "width": 2,
                    "dash": "dot" if point.cell.num_diverged else "solid",
                },
                "hovertemplate": f"{NAMES[point.route]}, k = {number(point.k)}<br>"
                f"step %{{x}}: %{{y:.4g}}<extra></extra>",
                **place,
            }
        )
        named.add(point.k)
    shown = [point.curve for point in drawn if point.curve]
    vertical = axis(theme, metric_title(metric), log=log, **(log_view(shown) if log else {}))
    title = "optimiser step"
    figure_layout = layout(
        theme,
        x=axis(theme, title, domain=[0, 0.48]),
        y=vertical,
        height=420,
        hovermode="closest",
        annotations=[
            _heading(f"α × k at η = {number(base.lr)}", 0.24, theme),
            _heading(f"η × k at α = {number(base.alpha)}", 0.76, theme),
        ],
    )
    figure_layout["xaxis2"] = axis(theme, title, domain=[0.52, 1], matches="x")
    figure_layout["yaxis2"] = {**vertical, "title": None, "anchor": "x2", "matches": "y"}
    figure_layout["yaxis2"]["showticklabels"] = False
    figure_layout["margin"] |= {"t": 40}
    return {"data": data, "layout": figure_layout}


def loss_figure(points: Sequence[RoutePoint], theme: Theme, *, label: str) -> Figure:
    """Final value against k, both routes; k at which a seed diverged are marked above."""
    good = [point for point in points if point.cell.mean is not None]
    bad = [point for point in points if point.cell.num_diverged]
    if not good and not bad:
        return empty(theme, "No cell of these routes has finished yet.", height=360)
    data: list[dict[str, Any]] = []
    for route in ROUTES:
        mine = [point for point in good if point.route == route]
        if mine:
            data.append(_losses(mine, route, label))
    means = [point.cell.mean for point in good if point.cell.mean is not None] or [1.0]
    top, lift = max(means), 0.15 * (max(means) if min(means) > 0 else max(means) - min(means))
    for route, height in (("alpha", top + lift), ("lr", top + 2 * lift)):
        mine = [point for point in bad if point.route == route]
        if mine:
            data.append(_divergences(mine, route, height))
    return {
        "data": data,
        "layout": layout(
            theme,
            x=octave_axis(theme, "k", sorted({point.k for point in points})),
            y=value_axis(theme, wrapped(label), [point.cell.mean for point in good]),
            height=360,
            hovermode="closest",
        ),
    }


def _losses(points: Sequence[RoutePoint], route: str, label: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": NAMES[route],
        "x": [point.k for point in points],
        "y": [point.cell.mean for point in points],
        "error_y": {
            "type": "data",
            "array": [point.cell.std or 0 for point in points],
            "thickness": 1,
            "width": 3,
        },
        "line": {"color": COLOURS[route], "width": 2, "dash": "solid" if route == "alpha" else "dash"},
        "marker": {
            "color": COLOURS[route],
            "size": 9,
            "symbol": [_symbol(point, route) for point in points],
        },
        "hovertext": [
            f"{NAMES[route]}, k = {number(point.k)}<br>{label}: {number(point.cell.mean)} ± "
            f"{number(point.cell.std)}, n = {point.cell.n}<br>{point.cell.num_diverged} diverged"
            for point in points
        ],
        "hoverinfo": "text",
    }


def _symbol(point: RoutePoint, route: str) -> str:
    """Open where the mean leaves out seeds that diverged."""
    return ("circle" if route == "alpha" else "square") + ("-open" if point.cell.num_diverged else "")


def _divergences(points: Sequence[RoutePoint], route: str, height: float) -> dict[str, Any]:
    totals = [point.cell.n + point.cell.num_diverged for point in points]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": f"{NAMES[route]} diverged",
        "x": [point.k for point in points],
        "y": [height] * len(points),
        "text": [f"{point.cell.num_diverged}/{total}" for point, total in zip(points, totals, strict=True)],
        "textposition": "top center",
        "textfont": {"color": COLOURS[route], "size": 11},
        "cliponaxis": False,
        "marker": {"symbol": "x", "size": 10, "color": COLOURS[route]},
        "hovertext": [
            f"{NAMES[route]}, k = {number(point.k)}: {point.cell.num_diverged} of {total} diverged"
            for point, total in zip(points, totals, strict=True)
        ],
        "hoverinfo": "text",
    }


def _plain(cells: Sequence[Cell]) -> list[Cell]:
    return [
        cell
        for cell in cells
        if cell.rank is not None
        and cell.alpha is not None
        and cell.lr_ratio == 1
        and cell.alpha_schedule == "constant"
    ]


def _curve_key(curve: Curve) -> tuple[Any, ...] | None:
    labels = curve.labels
    if labels.get("lr_ratio", 1) != 1 or labels.get("alpha_schedule", "constant") != "constant":
        return None
    return (labels.get("method"), labels.get("rank"), labels.get("alpha"), labels.get("lr"))


def _spread(factors: Sequence[float]) -> list[str]:
    colours = ordinal_colours([math.log2(factor) for factor in factors])
    return [colours[math.log2(factor)] for factor in factors]


def _heading(text: str, x: float, theme: Theme) -> dict[str, Any]:
    return {
        "text": f"<b>{text}</b>",
        "xref": "paper",
        "yref": "paper",
        "x": x,
        "y": 1.02,
        "xanchor": "center",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 13, "color": theme.text},
    }
