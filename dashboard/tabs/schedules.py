"""Tab of the dynamics page: does moving α during training beat the best constant α?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash.development.base_component import Component

from dashboard.components.parts import behind, note, table
from dashboard.figures.schedules import differences_figure, loss_figure, scale_figure
from dashboard.figures.style import Theme, number
from dashboard.tab import Plot, Tab, Words
from dashboard.tabs.alpha_eta import metric_label
from lora_alpha.wire.analysis import Cell, ScheduleComparison, Schedules
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curves

HOW = (
    "Each schedule and constant α at its minimum over α, between the cells, paired by seed; the interval "
    "holds at 95 % for all schedules of one rank and η together. Shaded: within the margin."
)


@dataclass(frozen=True)
class Found:
    """The comparison, all cells, the best ones' scale over steps, and what α is chosen by."""

    schedules: Schedules
    cells: list[Cell]
    scales: Curves
    label: str


def fetch(client: Client, view: Mapping[str, Any]) -> Found | None:
    """The comparison and what is drawn beside it; None where no run moves α."""
    sweep_id = view["sweep"]
    schedules = client.schedules(sweep_id)
    if not schedules.items:
        return None
    read = client.cells(sweep_id)
    label = metric_label(read.metric, client.sweep(sweep_id))
    return Found(schedules, read.cells, _scales(client, sweep_id, read.cells), label)


def draw(found: Found, _: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """Verdict, differences, losses, scales, table."""
    return (
        _verdict(found.schedules),
        differences_figure(found.schedules, colours),
        loss_figure(found.cells, colours, label=found.label),
        scale_figure(found.scales, found.cells, colours),
        behind("Table: every schedule", _table(found.schedules.items)),
    )


def _scales(client: Client, sweep_id: str, cells: Sequence[Cell]) -> Curves:
    """Of each schedule's best cell the scale over steps; constant α where its pack logged it."""
    curves = client.curves(sweep_id, metric="scale", points=200, group_by="cell")
    best: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        if cell.measured and cell.cost is not None:
            key = (cell.alpha_schedule, cell.method, cell.rank, cell.lr)
            if key not in best or cell.cost < (best[key].cost or 0.0):
                best[key] = cell
    wanted = {(c.alpha_schedule, c.method, c.rank, c.alpha, c.lr) for c in best.values()}
    names = ("alpha_schedule", "method", "rank", "alpha", "lr")
    kept = [curve for curve in curves.curves if tuple(curve.labels.get(name) for name in names) in wanted]
    return curves.model_copy(update={"curves": kept})


def _verdict(schedules: Schedules) -> Component:
    title, _, rest = schedules.verdict.partition(": ")
    waiting = f"{schedules.num_pending} runs are still to come." if schedules.num_pending else ""
    text = " ".join(part for part in (rest[:1].upper() + rest[1:], waiting) if part)
    if not rest or waiting:
        head = f"So far: {title[:1].lower() + title[1:]}." if rest else schedules.verdict
        return note(f"Does any schedule beat the best constant α? {head}", text, colour="gray")
    colour = {"Yes": "teal", "No": "blue"}.get(title, "gray")
    return note(f"Does any schedule beat the best constant α? {title}.", text, colour=colour)


def _table(items: Sequence[ScheduleComparison]) -> Component:
    rows = [_row(item) for item in items]
    headings = [
        "alpha_schedule",
        "r",
        "η",
        "best α",
        "loss",
        "constant: best α",
        "loss",
        "difference",
        "interval",
        "in the metric's unit",
        "seeds",
        "α tried",
        "diverged",
        "verdict",
    ]
    return table(headings, rows)


def _row(item: ScheduleComparison) -> list[Any]:
    interval = "–" if item.low is None or item.high is None else f"{item.low:+.1%} to {item.high:+.1%}"
    return [
        item.alpha_schedule,
        str(item.rank),
        number(item.lr),
        number(item.best_alpha),
        number(item.loss),
        number(item.constant_alpha),
        number(item.constant_loss),
        "–" if item.difference is None else f"{item.difference:+.1%}",
        interval,
        "–" if item.gap is None else f"{item.gap:+.3g}",
        str(item.num_seeds),
        str(item.num_alphas),
        str(item.num_diverged or ""),
        item.verdict.replace("_", " "),
    ]


TAB = Tab(
    page="dynamics",
    name="schedules",
    title="α over time",
    parts=(
        Words("dynamics-schedules-verdict"),
        Plot("dynamics-schedules", height=320, about=HOW),
        Plot("dynamics-schedules-loss", height=400, title="Against α"),
        Plot("dynamics-schedules-scale", height=360, title="How s moved, each schedule at its best α"),
        Words("dynamics-schedules-table"),
    ),
    fetch=fetch,
    draw=draw,
    empty="No run of this sweep moves α. The preset “α over time” does; see alpha_schedule in the form.",
)
