"""Tab of a sweep: the metric of every cell over α and η (or rank), and slices through it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from dashboard.components.parts import card, notes, table
from dashboard.controls import Subject, choice, switch, typed
from dashboard.figures.alpha_eta import NOTHING, map_figure, slices_figure
from dashboard.figures.style import Theme, number
from dashboard.tab import Plot, Row, Tab, Words
from lora_alpha.metrics import EVAL_LOSS, Metric
from lora_alpha.wire.analysis import Cell, Cells
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

MAP = Plot("map-figure", height=460)
SLICES = Plot("slices-figure")
CELLS = Words("map-table", folded="Table: all cells")
ABOUT = (
    "Measured cells only, nothing is interpolated. Outlined: best. "
    "✕ diverged, ▽ not reached, △ failed, ○ not finished."
)
AT_STEP = "At step (empty: the end)"
STEPS_TO = "Steps until it is (empty: its value)"
OWN = "own"
READING = ("chosen_by", "objective", "at_step", "steps_to")  # controls that ``reading`` needs


def reading(view: Mapping[str, Any]) -> dict[str, Any]:
    """How the analysis is to read runs; a tab that uses it reads the controls ``READING``."""
    asked = {"objective": view["objective"]}
    if view["chosen_by"] != OWN:
        asked["metric"] = view["chosen_by"]
    if (target := typed_number(view["steps_to"])) is not None:
        asked["steps_to"] = target
    elif (step := str(view["at_step"])).isdigit():
        asked["at_step"] = int(step)
    return asked


def typed_number(text: Any) -> float | None:
    """The finite number that was typed, None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def metric_label(metric: Metric, sweep: Sweep) -> str:
    """What an axis of the metric's values is called: of the held-out loss as the workload says."""
    return sweep.metric_label if metric.name == EVAL_LOSS.name and metric.goal == "min" else metric.title


def panel(_: Subject, row: Row) -> Component:
    """Controls and tiles, then the slices."""
    about = dmc.Text(ABOUT, size="sm", c="dimmed")
    return html.Div(
        [
            card(row(), *MAP.place(), about, title="Every cell"),
            card(
                *SLICES.place(),
                *CELLS.place(),
                title="Against α: mean and 95 % interval over seeds",
            ),
        ]
    )


def fetch(client: Client, view: Mapping[str, Any]) -> tuple[Sweep, Cells]:
    """The sweep and its cells."""
    return client.sweep(view["sweep"]), client.cells(view["sweep"], **reading(view))


def draw(found: tuple[Sweep, Cells], view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """Tiles, slices, table."""
    sweep, cells = found[0], found[1].cells
    label, vertical, lrs = metric_label(found[1].metric, sweep), view["vertical"], sweep.spec["lrs"]
    # The map is about constant α, unless there is none: cells of other schedules would lie on the same tiles.
    constant = [cell for cell in cells if cell.alpha_schedule == "constant"]
    of_method = [cell for cell in constant or cells if cell.method == view["map_method"]]
    tiles = [cell for cell in of_method if vertical == "rank" or cell.rank == int(view["map_rank"])]
    if vertical == "rank" and len(lrs) > 1:
        tiles = [cell for cell in tiles if cell.lr == lrs[0]]
    return (
        map_figure(tiles, colours, vertical=vertical, label=label),
        slices_figure(of_method, colours, label=label, log_y=True),
        [*notes(found[1].notes), _table(cells)],
    )


def middle_rank(subject: Subject) -> str:
    """The rank in the middle of the sweep's: what a page shows before one is chosen."""
    ranks = subject.spec["ranks"]
    return str(ranks[len(ranks) // 2])


def _metrics(subject: Subject) -> list[dict[str, str]]:
    """The sweep's own metric first, then the others that have a direction."""
    assert subject.sweep is not None
    found = subject.client.metrics(subject.sweep.id)
    own = {"value": OWN, "label": found.metric.name}
    others = [metric.name for metric in found.metrics if metric.name != found.metric.name]
    return [own, *({"value": name, "label": name} for name in others)]


def _methods(subject: Subject) -> list[str]:
    return subject.spec["methods"] or ["lora"]


def _ranks(subject: Subject) -> list[str]:
    return [str(rank) for rank in subject.spec["ranks"]]


def _table(cells: Sequence[Cell]) -> Component:
    headings = [
        "method",
        "r",
        "α",
        "s",
        "η",
        "n",
        "mean",
        "std",
        "95 %",
        "forgetting",
        "diverged",
        "failed",
        "not reached",
        "not recorded",
    ]
    rows = [
        [
            cell.method,
            "–" if cell.rank is None else str(cell.rank),
            number(cell.alpha),
            number(cell.scale),
            number(cell.lr),
            str(cell.n),
            number(cell.mean),
            number(cell.std),
            f"{number(cell.ci_low)} to {number(cell.ci_high)}" if cell.ci_low is not None else "–",
            number(cell.forgetting),
            str(cell.num_diverged or ""),
            str(cell.num_failed or ""),
            str(cell.num_unreached or ""),
            str(cell.num_unrecorded or ""),
        ]
        for cell in cells
    ]
    return table(headings, rows)


TAB = Tab(
    page="sweep",
    name="map",
    title="α–η map",
    controls=(
        switch(
            "vertical",
            "Vertical axis",
            lambda subject: "lr" if len(subject.spec["lrs"]) > 1 else "rank",
            ["lr", "rank"],
        ),
        choice("map_method", "Method", lambda subject: _methods(subject)[0], _methods, of_sweep=True),
        choice("map_rank", "Rank (for α against η)", middle_rank, _ranks, of_sweep=True),
        choice("chosen_by", "α chosen by", OWN, _metrics, of_sweep=True),
        switch("objective", "Value", "final", ["final", "best"]),
        typed("at_step", AT_STEP, width=160),
        typed("steps_to", STEPS_TO, width=200),
    ),
    parts=(MAP, SLICES, CELLS),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
    panel=panel,
)
