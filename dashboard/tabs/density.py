"""Tab of the curvature page: spectral densities in both coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboard import ids
from dashboard.components.parts import behind, table
from dashboard.controls import several
from dashboard.figures.density import NOTHING, density_figure, density_grid, density_name
from dashboard.figures.style import Theme, number
from dashboard.tab import Part, Plot, Tab, Words
from dashboard.tabs.probes import FRESH
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import Probe

ABOUT = "Stochastic Lanczos quadrature; every node is drawn as a Gaussian of 1 % of the spectrum's extent."


def fetch(client: Client, view: Mapping[str, Any]) -> list[Probe]:
    """Finished density probes, the newest first."""
    where: dict[str, Any] = {"fresh": True} if view["sweep"] == FRESH else {"sweep": view["sweep"]}
    page = client.probes(**where, kind="density", state="finished", limit=100).items
    return [probe for probe in page if density_grid(probe)]


def draw(found: list[Probe], view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """The chosen densities, their moments, and what can be chosen."""
    chosen = [probe for probe in found if probe.id in view["densities"]] or _newest_pair(found)
    data = [{"value": probe.id, "label": f"{density_name(probe)} ({probe.id[:4]})"} for probe in found]
    rows = [_row(probe) for probe in chosen]
    headings = ["probe", "point", "coordinates", "mean λ", "second moment", "smallest", "largest"]
    return density_figure(chosen, colours), behind("Table: moments", table(headings, rows)), data


def _newest_pair(found: Sequence[Probe]) -> list[Probe]:
    """The newest of each space, at the same point if there is one."""
    if not found:
        return []
    first = found[0]
    others = [probe for probe in found if probe.space != first.space]
    same = [probe for probe in others if (probe.run_id, probe.step) == (first.run_id, first.step)]
    return [first, *(same or others)[:1]]


def _row(probe: Probe) -> list[Any]:
    result = probe.result or {}
    moments = {row["index"]: row for row in result.get("rows", []) if row["kind"] == "moment"}
    ordered = [moments[index] for index in sorted(moments)]
    grid = density_grid(probe)
    shown = [
        f"{number(row['value'])} ± {number(row['error'])}" if row["error"] else number(row["value"])
        for row in ordered[:2]
    ]
    ends = [number(grid[0][0]), number(grid[0][-1])] if grid else ["–", "–"]
    return [
        probe.id,
        density_name(probe),
        f"{result.get('num_parameters', 0):,}",
        *[*shown, "–", "–"][:2],
        *ends,
    ]


TAB = Tab(
    page="curvature",
    name="density",
    title="Spectral density",
    controls=(several("densities", "Probes", None, nothing="the newest of each space", width=620),),
    parts=(
        Plot("density-figure", height=400, about=ABOUT),
        Words("density-figure-table"),
        Part(ids.control("curvature", "densities"), "data"),
    ),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
)
