"""Spectral densities in both coordinate systems, one over the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboard.figures.style import CATEGORICAL, DASHES, Figure, Theme, axis, empty, faded, layout, number
from lora_alpha.wire.jobs import Probe

NOTHING = "No spectral density has been probed here yet: choose kind 'density'."
FLOOR = 1e-6  # of the peak: below it the Gaussian tails of the drawing say nothing
COLOURS = {"lora": CATEGORICAL[0], "full": CATEGORICAL[1]}
NAMES = {"lora": "LoRA", "full": "full weights"}


def density_figure(probes: Sequence[Probe], theme: Theme) -> Figure:
    """Log density against λ of each finished density probe; both spaces share the axes."""
    found = [(probe, density_grid(probe)) for probe in probes]
    drawn = [(probe, *grid) for probe, grid in found if grid is not None]
    if not drawn:
        return empty(theme, NOTHING, height=400)
    peak = max(max(values) for _, _, values in drawn)
    data: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for probe, grid, values in drawn:
        place = seen.get(probe.space, 0)
        seen[probe.space] = place + 1
        colour = COLOURS[probe.space]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": density_name(probe),
                "x": grid,
                "y": [max(value, FLOOR * peak) for value in values],
                "line": {"color": colour, "width": 1.8, "dash": DASHES[place % len(DASHES)]},
                "fill": "tozeroy" if place == 0 else "none",
                "fillcolor": faded(colour, 0.12),
                "hovertemplate": f"{density_name(probe)}<br>λ %{{x:.4g}}: %{{y:.3g}}<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": layout(
            theme,
            x=axis(theme, "eigenvalue λ", zeroline=True, zerolinecolor=theme.line),
            y=axis(
                theme, "density", log=True, dtick=1, range=[math.log10(FLOOR * peak), math.log10(2 * peak)]
            ),
            height=400,
            hovermode="closest",
        ),
    }


def density_grid(probe: Probe) -> tuple[list[float], list[float]] | None:
    """λ and density of a finished density probe, in order; None for any other probe."""
    rows = (probe.result or {}).get("rows", [])
    columns: dict[str, dict[int, float]] = {"density_grid": {}, "density": {}}
    for row in rows:
        if row["kind"] in columns and row["value"] is not None:
            columns[row["kind"]][row["index"]] = row["value"]
    places = sorted(set(columns["density_grid"]) & set(columns["density"]))
    if probe.state != "finished" or not places:
        return None
    return [columns["density_grid"][i] for i in places], [columns["density"][i] for i in places]


def density_name(probe: Probe) -> str:
    """``LoRA, r 8, α 64, step 0``."""
    point = (probe.result or {}).get("point", {})
    parts = [NAMES[probe.space]]
    if point.get("rank") is not None:
        parts += [f"r {point['rank']}", f"α {number(point['alpha'])}"]
    return ", ".join([*parts, f"step {point.get('step', 0)}"])
