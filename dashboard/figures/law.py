"""α* against rank: optima with intervals and basins, the fitted law, reference slopes and common rules."""

from __future__ import annotations

import math
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
    number,
    octave_axis,
    octaves_between,
)
from lora_alpha.wire.analysis import WITHIN_BASIN, Law, Optimum, Rule

# Colour and dash of each common rule, in the order in which the service tells them.
RULE_LINES = (("#d9480f", "dash"), ("#db2777", "dash"), ("#65a30d", "dashdot"), ("#8b5cf6", "dash"))
NOTHING = "No optimum yet: a rank needs at least three finished values of α."
MAX_BANDS = 2  # laws
SLOPES = {"slope 0": 0.0, "slope ½": 0.5, "slope 1": 1.0}


def law_figure(
    laws: Sequence[Law], theme: Theme, *, rules: Sequence[Rule] | None = None, names: Sequence[str] = ()
) -> Figure:
    """All laws in one log-log plot; hollow points with an arrow are censored.

    Args:
        laws: Laws of one target (α, or lr).
        theme: Colours.
        rules: Draw these common rules and the slopes 0, ½, 1 through the first law's middle; None: neither.
        names: A name per law, where laws of several sweeps are compared.
    """
    drawn = [law for law in laws if law.optima]
    if not drawn:
        return empty(theme, NOTHING)
    target = "α*" if drawn[0].target == "alpha" else "η*"
    ranks = sorted({optimum.rank for law in drawn for optimum in law.optima})
    # Bands and basins of many laws hide each other; a line and its points side by side are readable.
    crowded = len(drawn) > MAX_BANDS
    data: list[dict[str, Any]] = []
    if rules is not None:
        data += _references(drawn[0], ranks, rules, theme)
    for index, law in enumerate(drawn):
        colour = CATEGORICAL[index % len(CATEGORICAL)]
        name = names[index] if index < len(names) else law_name(law, drawn)
        shift = 2.0 ** (min(0.09, 0.24 / len(drawn)) * (index - (len(drawn) - 1) / 2)) if crowded else 1.0
        own = _band(law, colour, name, band=not crowded)
        own += [] if crowded else [_basins(law.optima, colour)]
        own += _points(law, colour, SYMBOLS[index % len(SYMBOLS)], name, theme, shift=shift)
        data += _joined(own, law, name) if crowded else own
    values = [bound for law in drawn for o in law.optima for bound in (o.value, o.basin_low, o.basin_high)]
    low, high = min(values) / 2.2, max(values) * 2.2
    span: dict[str, Any] = {"range": [math.log10(low), math.log10(high)]}
    if drawn[0].target == "alpha":
        ticks = octaves_between(low, high)
        span |= {"tickvals": ticks, "ticktext": [number(value) for value in ticks]}
    figure_layout = layout(
        theme,
        x=octave_axis(theme, "rank r", ranks),
        y=axis(theme, target, log=True, **span),
        height=540,
        hovermode="closest",
    )
    return {"data": data, "layout": figure_layout}


def law_name(law: Law, among: Sequence[Law]) -> str:
    """What tells this law from the others of the figure."""
    parts = [law.method] if len({other.method for other in among}) > 1 else []
    if len({other.lr for other in among}) > 1 and law.lr is not None:
        parts.append(f"η {number(law.lr)}")
    if law.lr_ratio != 1:
        parts.append(f"η_B/η_A {number(law.lr_ratio)}")
    return ", ".join(parts) or "measured"


def _joined(traces: list[dict[str, Any]], law: Law, name: str) -> list[dict[str, Any]]:
    """One legend entry for everything of a law: its line, or its points where there is none."""
    shared = {"legendgroup": traces[0]["name"]}
    own_name = {} if law.fit is not None else {"name": f"{name}: no law"}
    return [trace | shared | own_name | {"showlegend": place == 0} for place, trace in enumerate(traces)]


def _points(
    law: Law, colour: str, symbol: str, name: str, theme: Theme, *, shift: float
) -> list[dict[str, Any]]:
    """Optima with intervals; ``shift`` moves them aside along the rank axis."""
    inside = [optimum for optimum in law.optima if not optimum.censored]
    censored = [optimum for optimum in law.optima if optimum.censored]
    traces: list[dict[str, Any]] = []
    if inside:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{name}: best per rank",
                "x": [optimum.rank * shift for optimum in inside],
                "y": [optimum.value for optimum in inside],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [(o.high or o.value) - o.value for o in inside],
                    "arrayminus": [o.value - (o.low or o.value) for o in inside],
                    "thickness": 1.6,
                    "width": 5,
                },
                "marker": {
                    "symbol": symbol,
                    "size": 10,
                    "color": colour,
                    "line": {"width": 1, "color": theme.surface},
                },
                "hovertext": [_hover(optimum) for optimum in inside],
                "hoverinfo": "text",
            }
        )
    if censored:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": f"{name}: censored",
                "x": [optimum.rank * shift for optimum in censored],
                "y": [optimum.value for optimum in censored],
                "marker": {"symbol": f"{symbol}-open", "size": 11, "color": colour, "line": {"width": 2}},
                "text": [{"low_edge": "↓", "high_edge": "↑"}.get(o.censored, "↕") for o in censored],
                "textposition": "middle right",
                "textfont": {"size": 15, "color": colour},
                "hovertext": [_hover(optimum) for optimum in censored],
                "hoverinfo": "text",
            }
        )
    return traces


def _basins(optima: Sequence[Optimum], colour: str) -> dict[str, Any]:
    """Wide pale bars: everything in the basin."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for optimum in optima:
        xs += [optimum.rank, optimum.rank, None]
        ys += [optimum.basin_low, optimum.basin_high, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{WITHIN_BASIN} of the best",
        "x": xs,
        "y": ys,
        "line": {"width": 14, "color": faded(colour, 0.22)},
        "hoverinfo": "skip",
    }


def _band(law: Law, colour: str, name: str, *, band: bool) -> list[dict[str, Any]]:
    if law.band is None or law.fit is None:
        return []
    traces: list[dict[str, Any]] = []
    if law.band.low and band:
        traces.append(
            {
                "type": "scatter",
                "x": law.band.rank + law.band.rank[::-1],
                "y": law.band.high + law.band.low[::-1],
                "fill": "toself",
                "fillcolor": faded(colour, 0.13),
                "line": {"width": 0},
                "mode": "lines",
                "name": "95 % band of the law",
                "hoverinfo": "skip",
            }
        )
    label = f"{number(float(f'{law.fit.coefficient:.3g}'))}·r^{law.fit.exponent:.2f}"
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{name}: {label}",
            "x": law.band.rank,
            "y": law.band.value,
            "line": {"color": colour, "width": 2.6},
            "hoverinfo": "skip",
        }
    )
    return traces


def _references(law: Law, ranks: Sequence[int], rules: Sequence[Rule], theme: Theme) -> list[dict[str, Any]]:
    low, high = min(ranks) / 1.4, max(ranks) * 1.4
    xs = [low * (high / low) ** (index / 24) for index in range(25)]
    middle = math.sqrt(min(ranks) * max(ranks))
    anchor = math.exp(sum(math.log(o.value) for o in law.optima) / len(law.optima))
    traces = []
    for index, (name, slope) in enumerate(SLOPES.items()):
        ys = [anchor * (x / middle) ** slope for x in xs]
        traces.append(_reference(name, xs, ys, theme.line, ("dot", "dash", "dashdot")[index]))
    for index, rule in enumerate(rules):
        ys = [rule.alpha(x) for x in xs]
        traces.append(_reference(rule.name, xs, ys, *RULE_LINES[index % len(RULE_LINES)]))
    return traces


def _reference(name: str, xs: Sequence[float], ys: Sequence[float], colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(xs),
        "y": list(ys),
        "line": {"color": colour, "width": 1.2, "dash": dash},
        "hovertemplate": f"{name}: %{{y:.4g}} at r %{{x:.0f}}<extra></extra>",
    }


def _hover(optimum: Optimum) -> str:
    lines = [f"<b>rank {optimum.rank}: {number(float(f'{optimum.value:.3g}'))}</b>"]
    if optimum.low is not None and optimum.high is not None:
        lines.append(f"95 %: {number(float(f'{optimum.low:.3g}'))} to {number(float(f'{optimum.high:.3g}'))}")
    lines.append(
        f"{WITHIN_BASIN}: {number(float(f'{optimum.basin_low:.3g}'))} to "
        f"{number(float(f'{optimum.basin_high:.3g}'))} ({optimum.basin_octaves:.1f} octaves)"
    )
    lines.append(f"best loss {number(optimum.loss)}, {optimum.num_seeds} seeds")
    if optimum.censored:
        lines.append(
            {"cliff": "next to a diverged cell"}.get(optimum.censored, "on the grid's edge: extend the grid")
        )
    return "<br>".join(lines)
