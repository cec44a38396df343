"""Tab of the dynamics page: does moving α during training beat the best constant α?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Output, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, figure, note, table
from dashboard.connection import Connect
from dashboard.figures.schedules import differences_figure, loss_figure, scale_figure
from dashboard.figures.style import empty, number, theme
from dashboard.views import draw_tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import Cell, ScheduleComparison, Schedules
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curves

DEFAULTS: dict[str, Any] = {}
HOW = (
    "Each schedule and constant α at the α that is best in the mean over seeds, paired by seed; the interval "
    "holds at 95 % for all schedules of one rank and η together. Shaded: within the margin."
)
NONE = "No run of this sweep moves α. The preset “α over time” does; see alpha_schedule in the form."


def panel() -> Component:
    """Verdict, differences, losses, and how the scale moved."""
    return html.Div(
        [
            html.Div(id=f"{ids.DYNAMICS_SCHEDULES}-verdict"),
            figure(ids.DYNAMICS_SCHEDULES, height=320),
            dmc.Text(HOW, size="sm", c="dimmed"),
            dmc.Title("Loss against α", order=4, mt="md"),
            figure(f"{ids.DYNAMICS_SCHEDULES}-loss", height=400),
            dmc.Title("How s moved, each schedule at its best α", order=4, mt="md"),
            figure(f"{ids.DYNAMICS_SCHEDULES}-scale", height=360),
            html.Div(id=f"{ids.DYNAMICS_SCHEDULES}-table"),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """The tab's callback."""
    draw_tab(
        app,
        "schedules",
        [
            Output(f"{ids.DYNAMICS_SCHEDULES}-verdict", "children"),
            Output(ids.DYNAMICS_SCHEDULES, "figure"),
            Output(f"{ids.DYNAMICS_SCHEDULES}-loss", "figure"),
            Output(f"{ids.DYNAMICS_SCHEDULES}-scale", "figure"),
            Output(f"{ids.DYNAMICS_SCHEDULES}-table", "children"),
        ],
        pulse=ids.DYNAMICS_PULSE,
        view=ids.DYNAMICS_VIEW,
        draw=partial(_draw, connect),
    )


def _draw(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    sweep_id = view["sweep"]
    colours = theme(theme_name)
    nothing = empty(colours, "", height=260)
    try:
        with connect() as client:
            schedules = client.schedules(sweep_id)
            cells = client.cells(sweep_id).cells
            label = client.sweep(sweep_id).metric_label
            scales = _scales(client, sweep_id, cells)
    except LoraAlphaError as error:
        return note("No data", str(error), colour="red"), nothing, nothing, nothing, ""
    if not schedules.items:
        text = empty(colours, NONE, height=260)
        return note("α is constant here", NONE, colour="gray"), text, nothing, nothing, ""
    return (
        _verdict(schedules),
        differences_figure(schedules, colours),
        loss_figure(cells, colours, label=label),
        scale_figure(scales, cells, colours),
        behind("Table: every schedule", _table(schedules.items)),
    )


def _scales(client: Client, sweep_id: str, cells: Sequence[Cell]) -> Curves:
    """Of each schedule's best cell the scale over steps; constant α where its pack logged it."""
    curves = client.curves(sweep_id, metric="scale", points=200, group_by="cell")
    best: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        if cell.mean is not None and not cell.num_diverged:
            key = (cell.alpha_schedule, cell.method, cell.rank, cell.lr)
            if key not in best or cell.mean < (best[key].mean or 0.0):
                best[key] = cell
    wanted = {(c.alpha_schedule, c.method, c.rank, c.alpha, c.lr) for c in best.values()}
    names = ("alpha_schedule", "method", "rank", "alpha", "lr")
    kept = [curve for curve in curves.curves if tuple(curve.labels.get(name) for name in names) in wanted]
    return Curves(metric="scale", metrics=curves.metrics, curves=kept, last_step=curves.last_step)


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
        str(item.num_seeds),
        str(item.num_alphas),
        str(item.num_diverged or ""),
        item.verdict.replace("_", " "),
    ]
