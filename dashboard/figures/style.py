"""How every figure looks: two themes, colour-blind safe palettes, log axes that read well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Figure = dict[str, Any]

# After Okabe & Ito 2008: no yellow (invisible on white), no black (on dark), a lighter blue, two more.
CATEGORICAL = ("#1F83C9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A06A58", "#A6A61E")
# Viridis without its darkest and lightest ends, which vanish on one of the two themes.
SEQUENTIAL = ("#6650b5", "#3f6fb5", "#2a8f9e", "#1fa187", "#4ac16d", "#a0da39")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "hexagon")
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Theme:
    """Colours that depend on light or dark."""

    name: str
    text: str
    muted: str
    grid: str
    line: str
    surface: str
    accent: str
    bad: str


LIGHT = Theme("light", "#1f2937", "#6b7280", "#e5e7eb", "#9ca3af", "#ffffff", "#0b7285", "#c92a2a")
DARK = Theme("dark", "#e5e7eb", "#9ca3af", "#343a46", "#6b7280", "#1a1d24", "#3bc9db", "#ff8787")


def theme(name: str | None) -> Theme:
    """The theme called ``dark``, else the light one."""
    return DARK if name == "dark" else LIGHT


def layout(theme: Theme, *, x: Any = None, y: Any = None, height: int = 440, **more: Any) -> dict[str, Any]:
    """The layout that all figures share; ``x`` and ``y`` are axes from ``axis``."""
    return {
        "font": {"family": FONT, "size": 13, "color": theme.text},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 70, "r": 24, "t": 28, "b": 58},
        "height": height,
        "hoverlabel": {
            "font": {"family": FONT, "size": 12, "color": theme.text},
            "bgcolor": theme.surface,
            "bordercolor": theme.line,
        },
        "legend": {"font": {"size": 12}, "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.muted, "activecolor": theme.text},
        "uirevision": "keep",
        "xaxis": x or axis(theme, ""),
        "yaxis": y or axis(theme, ""),
        **more,
    }


def axis(theme: Theme, title: str, *, log: bool = False, **more: Any) -> dict[str, Any]:
    """One axis with its unit in the title."""
    return {
        "title": {"text": title, "standoff": 10},
        "type": "log" if log else "linear",
        "gridcolor": theme.grid,
        "linecolor": theme.line,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": theme.line,
        "showline": True,
        "automargin": True,
        **({"tickformat": "~g", "nticks": 8, "minor": {"showgrid": False}} if log else {}),
        **more,
    }


def value_axis(
    theme: Theme, title: str, values: Iterable[float | None], *, log: bool = True, **more: Any
) -> dict[str, Any]:
    """An axis of a metric's values: logarithmic where all are above 0, else linear, which its title says.

    >>> value_axis(DARK, "reward", [-1.0, 2.0])["title"]["text"]
    'reward<br>(linear: some values are not above 0)'
    """
    if log and any(value is not None and value <= 0 for value in values):
        return axis(theme, f"{title}<br>(linear: some values are not above 0)", **more)
    return axis(theme, title, log=log, **more)


def octave_axis(theme: Theme, title: str, values: Sequence[float], **more: Any) -> dict[str, Any]:
    """A log axis whose ticks are the values that were run, thinned so that labels do not collide."""
    ticks = sorted(set(values))
    step = max(1, math.ceil(len(ticks) / 12))
    shown = ticks[::step]
    pad = 0.12 * math.log10(2) + 0.04 * math.log10(max(ticks, default=1) / min(ticks, default=1) or 1)
    span = [math.log10(min(ticks)) - pad, math.log10(max(ticks)) + pad] if ticks else None
    return axis(
        theme,
        title,
        log=True,
        tickvals=shown,
        ticktext=[number(value) for value in shown],
        **({"range": span} if span else {}),
        **more,
    )


def octaves_between(low: float, high: float, *, most: int = 10) -> list[float]:
    """Powers of two from ``low`` to ``high``, thinned to at most ``most``: ticks of an α axis.

    >>> octaves_between(30, 600)
    [32.0, 64.0, 128.0, 256.0, 512.0]
    """
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = max(1, math.ceil((last - first + 1) / most))
    return [2.0**exponent for exponent in range(first, last + 1, step)]


def ordinal_colours(values: Sequence[Any]) -> dict[Any, str]:
    """A colour for each value: sequential for numbers (in their order), categorical otherwise."""
    distinct = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in distinct) and len(distinct) > 1:
        ordered = sorted(distinct)
        return {value: _blend(index / (len(ordered) - 1)) for index, value in enumerate(ordered)}
    return {value: CATEGORICAL[index % len(CATEGORICAL)] for index, value in enumerate(distinct)}


def faded(colour: str, opacity: float) -> str:
    """``#rrggbb`` with an opacity."""
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def number(value: float | None) -> str:
    """A number as a label: ``64``, ``0.0123``, ``2e-4``.

    >>> [number(v) for v in (64.0, 0.01234, 2e-4, 1448.15, 16384, None)]
    ['64', '0.01234', '2e-4', '1448', '16384', '–']
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def interval(low: float | None, high: float | None, *, digits: int) -> str:
    """``0.41 to 0.58``, or that there is none."""
    return "no interval" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def wrapped(title: str) -> str:
    """A long axis title in two lines, broken before its fraction bar.

    >>> wrapped("held-out MSE / MSE of the untrained base")
    'held-out MSE<br>/ MSE of the untrained base'
    """
    return title.replace(" / ", "<br>/ ", 1) if len(title) > 30 else title


def empty(theme: Theme, text: str, *, height: int = 440) -> Figure:
    """A figure that says why it is empty."""
    note = {
        "text": text,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "showarrow": False,
        "font": {"size": 15, "color": theme.muted},
    }
    hidden = {"visible": False}
    return {"data": [], "layout": layout(theme, x=hidden, y=hidden, height=height, annotations=[note])}


def _blend(share: float) -> str:
    place = share * (len(SEQUENTIAL) - 1)
    index = min(int(place), len(SEQUENTIAL) - 2)
    first, second = SEQUENTIAL[index], SEQUENTIAL[index + 1]
    rest = place - index
    parts = [
        round(int(first[i : i + 2], 16) * (1 - rest) + int(second[i : i + 2], 16) * rest) for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)
