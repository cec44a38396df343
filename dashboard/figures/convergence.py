"""Loss (or any metric) over steps: one line a configuration, seeds as mean ± std."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.figures.bands import spread_band
from dashboard.figures.style import (
    DASHES,
    Figure,
    Theme,
    axis,
    empty,
    layout,
    number,
    ordinal_colours,
    value_axis,
)
from lora_alpha.metrics import guess_goal
from lora_alpha.wire.sweeps import Curve, Curves

AXIS_NAMES = {
    "rank": "r",
    "alpha": "α",
    "scale": "s",
    "lr": "η",
    "seed": "seed",
    "method": "",
    "lr_ratio": "η_B/η_A",
    "alpha_schedule": "",
}
PLAIN = (("lr_ratio", 1), ("alpha_schedule", "constant"))  # what need not be said
NOTHING = "No points yet. Curves appear here while the runs train."
MAX_BANDS = 24  # more bands than this hide each other; more lines than this hide the best


@dataclass(frozen=True)
class ConvergenceView:
    """What of the curves to draw, and how."""

    colour_by: str = "rank"
    log_x: bool = False
    log_y: bool = True
    smoothing: float = 0.0
    band: bool = True


def convergence_figure(curves: Curves, view: ConvergenceView, theme: Theme, *, label: str) -> Figure:
    """Every curve coloured by one axis; bands are ± one standard deviation over seeds.

    Of many curves the best of each colour stands out, where it is known which way is better; other metrics
    are drawn alike. A log axis is linear where a value is not above 0, and says so.
    """
    lines = [curve for curve in curves.curves if any(value is not None for value in curve.value)]
    if not lines:
        return empty(theme, NOTHING)
    colours = ordinal_colours([_axis_value(curve, view.colour_by) for curve in lines])
    goal = guess_goal(curves.metric)
    best = _best_of_groups(lines, view.colour_by, sign=-1 if goal == "max" else 1) if goal else set()
    # The best are drawn last, so that they lie on top, and carry the legend.
    in_order = sorted(
        lines, key=lambda curve: (curve.key in best, _sortable(_axis_value(curve, view.colour_by)))
    )
    keys = {_axis_value(curve, view.colour_by): curve.key for curve in reversed(in_order)}
    keys |= {_axis_value(curve, view.colour_by): curve.key for curve in in_order if curve.key in best}
    metric = label if curves.metric == "eval_loss" else curves.metric.replace("_", " ")
    values = [value for curve in lines for value in curve.value]
    vertical = value_axis(theme, metric, values, log=view.log_y)
    data: list[dict[str, Any]] = []
    for curve in in_order:
        group = _axis_value(curve, view.colour_by)
        colour = colours[group]
        if view.band and len(lines) <= MAX_BANDS and view.smoothing == 0:
            data += spread_band(curve, colour, log_y=vertical["type"] == "log")
        strong = not best or curve.key in best
        data.append(_line(curve, view, colour, group, first=keys[group] == curve.key, strong=strong))
    figure_layout = layout(
        theme,
        x=axis(theme, "optimiser step", log=view.log_x),
        y=vertical,
        height=520,
        hovermode="closest",
    )
    figure_layout["legend"] |= {
        "title": {"text": AXIS_NAMES.get(view.colour_by, view.colour_by) or view.colour_by}
    }
    return {"data": data, "layout": figure_layout}


def smooth(values: Sequence[float | None], weight: float) -> list[float | None]:
    """Moving average of past values only, corrected for its start: later points never change it."""
    smoothed: list[float | None] = []
    mean, norm = 0.0, 0.0
    for value in values:
        if value is None:
            smoothed.append(None)
            continue
        mean = weight * mean + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(mean / norm)
    return smoothed


def curve_name(curve: Curve) -> str:
    """``r 16, α 64, η 2e-4``."""
    parts = []
    for axis_name, value in curve.labels.items():
        short = AXIS_NAMES.get(axis_name)
        if short is None or value is None or (axis_name, value) in PLAIN or axis_name == "scale":
            continue
        shown = number(value) if isinstance(value, int | float) else str(value)
        parts.append(f"{short} {shown}".strip())
    return ", ".join(parts)


def _best_of_groups(lines: Sequence[Curve], colour_by: str, *, sign: float) -> set[str]:
    """Keys of the curve of the lowest sign · last value of each colour; none where nothing hides others."""
    if len(lines) <= MAX_BANDS:
        return set()
    best: dict[Any, tuple[float, str]] = {}
    for curve in lines:
        last = next((value for value in reversed(curve.value) if value is not None), None)
        if last is None or curve.diverged:
            continue
        group = _axis_value(curve, colour_by)
        best[group] = min(best.get(group, (sign * last, curve.key)), (sign * last, curve.key))
    return {key for _, key in best.values()}


def _line(
    curve: Curve, view: ConvergenceView, colour: str, group: Any, *, first: bool, strong: bool
) -> dict[str, Any]:
    seeds = len(curve.run_ids)
    shown = number(group) if isinstance(group, int | float) else str(group)
    return {
        "type": "scatter",
        "mode": "lines" if len(curve.step) > 1 else "markers",
        "x": _steps(curve, view),
        "y": smooth(curve.value, view.smoothing) if view.smoothing else curve.value,
        "name": shown,
        "legendgroup": shown,
        "showlegend": first,
        "line": {
            "color": colour,
            "width": 2.6 if strong else 1,
            "dash": DASHES[3] if curve.diverged else "solid",
        },
        "opacity": 1 if strong else 0.6,
        "customdata": [curve.run_ids[0]] * len(curve.step),
        "hovertemplate": (
            f"<b>{curve_name(curve)}</b><br>step %{{x}}: %{{y:.5g}}"
            f"<br>{seeds} run{'s' if seeds > 1 else ''}"
            f"{', some diverged' if curve.diverged else ''}<extra></extra>"
        ),
    }


def _steps(curve: Curve, view: ConvergenceView) -> list[float | None]:
    return [step if step > 0 or not view.log_x else None for step in curve.step]


def _axis_value(curve: Curve, axis_name: str) -> Any:
    return curve.labels.get(axis_name, "all")


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))
