"""Measured cells: tiles of loss over (α, η) or (α, rank), and slices of loss against α."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboard.figures.style import (
    DASHES,
    SYMBOLS,
    Figure,
    Theme,
    empty,
    layout,
    number,
    octave_axis,
    ordinal_colours,
    value_axis,
)
from lora_alpha.wire.analysis import Cell

NOTHING = "No cells yet."
# Viridis, the best bright: the eye goes there.
SCALE = [
    [0.0, "#fde725"],
    [0.2, "#7ad151"],
    [0.4, "#22a884"],
    [0.6, "#2a788e"],
    [0.8, "#414487"],
    [1.0, "#440154"],
]


def map_figure(cells: Sequence[Cell], theme: Theme, *, vertical: str, label: str) -> Figure:
    """One square per measured cell; ✕ diverged, ▽ not reached, ○ pending, △ failed; the best is outlined.

    Args:
        cells: Cells of one method (and of one rank, where ``vertical`` is lr).
        theme: Colours.
        vertical: ``lr`` or ``rank``.
        label: What the values are of, and which way is better.
    """
    shown = [cell for cell in cells if cell.alpha is not None and getattr(cell, vertical) is not None]
    if not shown:
        return empty(theme, NOTHING)
    rows = sorted({getattr(cell, vertical) for cell in shown})
    columns = sorted({cell.alpha for cell in shown if cell.alpha is not None})
    size = int(max(8, min(46, _pitch(columns, 1000) - 3, 400 // max(1, len(rows)))))
    good = [cell for cell in shown if cell.measured]
    data = [_tiles(good, vertical, size, label, theme)] if good else []
    data += _marks([c for c in shown if c.num_diverged], vertical, "x", "diverged", theme.bad, size)
    data += _marks(
        [c for c in shown if c.num_failed], vertical, "triangle-up-open", "failed", theme.bad, size
    )
    unreached = [c for c in shown if c.num_unreached]
    data += _marks(unreached, vertical, "triangle-down-open", "not reached", theme.bad, size)
    pending = [c for c in shown if c.mean is None and not (c.tried or c.num_failed)]
    data += _marks(pending, vertical, "circle-open", "not finished", theme.muted, size)
    if good:
        best = min(good, key=lambda cell: math.inf if cell.cost is None else cell.cost)
        data.append(_best(best, vertical, size, theme))
    name = "η (learning rate)" if vertical == "lr" else "rank r"
    return {
        "data": data,
        "layout": layout(
            theme,
            x=octave_axis(theme, "α", columns),
            y=octave_axis(theme, name, rows),
            height=max(320, min(640, 120 + 2 * size * len(rows))),
            hovermode="closest",
        ),
    }


def slices_figure(cells: Sequence[Cell], theme: Theme, *, label: str, log_y: bool) -> Figure:
    """Mean against α, one line per rank (and η), with the 95 % interval of the mean."""
    lines: dict[tuple[int, float], list[Cell]] = {}
    for cell in cells:
        if cell.rank is not None and cell.alpha is not None and cell.mean is not None:
            lines.setdefault((cell.rank, cell.lr), []).append(cell)
    if not lines:
        return empty(theme, "No cell has finished yet.")
    colours = ordinal_colours([rank for rank, _ in lines])
    lrs = sorted({lr for _, lr in lines})
    data: list[dict[str, Any]] = []
    for (rank, lr), members in sorted(lines.items()):
        ordered = sorted(members, key=lambda cell: cell.alpha or 0)
        name = f"r {rank}" + (f", η {number(lr)}" if len(lrs) > 1 else "")
        style = lrs.index(lr)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [cell.alpha for cell in ordered],
                "y": [cell.mean for cell in ordered],
                "error_y": _whiskers(ordered),
                "line": {"color": colours[rank], "width": 1.8, "dash": DASHES[style % len(DASHES)]},
                "marker": {"symbol": SYMBOLS[style % len(SYMBOLS)], "size": 6, "color": colours[rank]},
                "hovertext": [_hover(cell, label) for cell in ordered],
                "hoverinfo": "text",
            }
        )
    alphas = sorted({cell.alpha for cell in cells if cell.alpha is not None})
    return {
        "data": data,
        "layout": layout(
            theme,
            x=octave_axis(theme, "α", alphas),
            y=value_axis(theme, label, [cell.mean for cell in cells], log=log_y),
            hovermode="closest",
        ),
    }


def _pitch(values: Sequence[float], pixels: float) -> float:
    """Pixels between the closest two of ``values`` on a log axis of ``pixels``; wider tiles would overlap."""
    logs = [math.log(value) for value in values]
    gaps = [after - before for before, after in zip(logs, logs[1:], strict=False)]
    return pixels * min(gaps) / (logs[-1] - logs[0] + min(gaps)) if gaps else pixels


def _tiles(cells: Sequence[Cell], vertical: str, size: int, label: str, theme: Theme) -> dict[str, Any]:
    means = [cell.mean for cell in cells if cell.mean is not None]
    lower_is_better = cells[0].metric.goal == "min"
    # Accuracies and what can be 0 or negative are coloured by their value, other losses by its logarithm.
    log = lower_is_better and min(means) > 0
    shades = [math.log10(mean) for mean in means] if log else means
    low, high = min(shades), max(shades)
    ticks = [low + (high - low) * share for share in (0, 0.25, 0.5, 0.75, 1)]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [cell.alpha for cell in cells],
        "y": [getattr(cell, vertical) for cell in cells],
        "marker": {
            "symbol": "square",
            "size": size,
            "color": shades,
            "colorscale": SCALE,
            "reversescale": not lower_is_better,
            "line": {"width": 1, "color": theme.surface},
            "colorbar": {
                "title": {"text": label, "side": "right", "font": {"size": 12}},
                "tickvals": ticks,
                "ticktext": [number(float(f"{10**tick if log else tick:.3g}")) for tick in ticks],
                "thickness": 12,
                "outlinewidth": 0,
            },
        },
        "hovertext": [_hover(cell, label) for cell in cells],
        "hoverinfo": "text",
        "showlegend": False,
    }


def _marks(
    cells: Sequence[Cell], vertical: str, symbol: str, name: str, colour: str, size: int
) -> list[dict[str, Any]]:
    if not cells:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [cell.alpha for cell in cells],
            "y": [getattr(cell, vertical) for cell in cells],
            "marker": {"symbol": symbol, "size": max(8, size // 2), "color": colour, "line": {"width": 2}},
            "hovertext": [_hover(cell, cell.metric.name) for cell in cells],
            "hoverinfo": "text",
            "showlegend": False,
        }
    ]


def _best(cell: Cell, vertical: str, size: int, theme: Theme) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [cell.alpha],
        "y": [getattr(cell, vertical)],
        "marker": {"symbol": "square-open", "size": size + 6, "color": theme.bad, "line": {"width": 3}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _whiskers(cells: Sequence[Cell]) -> dict[str, Any]:
    up = [(c.ci_high - c.mean) if c.ci_high is not None and c.mean is not None else 0 for c in cells]
    return {"type": "data", "array": up, "thickness": 1, "width": 3}


def _hover(cell: Cell, label: str) -> str:
    lines = [f"<b>{cell.method}, r {cell.rank}, α {number(cell.alpha)}, η {number(cell.lr)}</b>"]
    lines.append(f"scale s = {number(cell.scale)}")
    if cell.mean is not None:
        lines.append(
            f"{label}: {number(cell.mean)}" + (f" ± {number(cell.std)}" if cell.std is not None else "")
        )
    lines.append(f"n = {cell.n}")
    for name, count in (
        ("diverged", cell.num_diverged),
        ("failed", cell.num_failed),
        ("waiting", cell.num_pending),
        ("not reached", cell.num_unreached),
        ("not recorded", cell.num_unrecorded),
    ):
        if count:
            lines.append(f"{count} {name}")
    if cell.forgetting is not None:
        lines.append(f"forgetting: {number(cell.forgetting)}")
    return "<br>".join(lines)
