"""Tab of a sweep with its runs; a click opens one with its figures, log and adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, html, no_update
from dash.development.base_component import Component

from dashboard.components.parts import card, table
from dashboard.controls import Subject
from dashboard.figures.style import Theme, number
from dashboard.tab import Part, Row, Tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Run

GRID, LOG, DRAWER = "runs-grid", "run-log", "run-drawer"
COLUMNS = (
    ("name", "name", "text"),
    ("state", "state", "text"),
    ("diverged", "diverged", "text"),
    ("method", "method", "text"),
    ("rank", "r", "number"),
    ("alpha", "α", "number"),
    ("scale", "s", "number"),
    ("lr", "η", "number"),
    ("seed", "seed", "number"),
    ("step", "step", "number"),
    ("final_loss", "final loss", "number"),
    ("best_loss", "best loss", "number"),
    ("best_step", "best step", "number"),
    ("forgetting", "forgetting", "number"),
    ("duration_s", "seconds", "number"),
    ("error", "reason", "text"),
)


def panel(_: Subject, __: Row) -> Component:
    """The grid of runs; a click opens the log."""
    columns = [
        {
            "field": field,
            "headerName": heading,
            "filter": "agNumberColumnFilter" if kind == "number" else "agTextColumnFilter",
            "width": {"name": 170, "error": 320}.get(field, 105),
            **(
                {"valueFormatter": {"function": "d3.format('.5~g')(params.value)"}}
                if kind == "number"
                else {}
            ),
        }
        for field, heading, kind in COLUMNS
    ]
    grid = dag.AgGrid(
        id=GRID,
        columnDefs=columns,
        rowData=[],
        defaultColDef={"sortable": True, "resizable": True, "floatingFilter": True},
        dashGridOptions={
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
            "animateRows": False,
            "theme": "themeQuartz",
        },
        getRowId="params.data.id",
        style={"height": 620},
    )
    about = dmc.Text("Click a run for figures, log and adapter.", size="sm", c="dimmed", mb="xs")
    drawer = dmc.Drawer(html.Div(id=LOG), id=DRAWER, title="Run", position="right", size="lg")
    return html.Div([card(about, grid), drawer])


def fetch(client: Client, view: Mapping[str, Any]) -> list[Run]:
    """Every run."""
    return client.all_runs(view["sweep"])


def draw(runs: list[Run], _: Mapping[str, Any], __: Theme) -> tuple[Any, ...]:
    """The grid's rows."""
    return ([_row(run) for run in runs],)


def register(app: Dash, client: Client) -> None:
    """A click on a run fills and opens the drawer."""

    @app.callback(
        Output(LOG, "children"),
        Output(DRAWER, "opened"),
        Output(DRAWER, "title"),
        Input(GRID, "selectedRows"),
        prevent_initial_call=True,
    )
    async def log(selected: list[dict[str, Any]] | None) -> Any:
        if not selected:
            return no_update, no_update, no_update
        return await asyncio.to_thread(_log, client, selected[0])


def _row(run: Run) -> dict[str, Any]:
    values = {field: getattr(run, field) for field, _, _ in COLUMNS}
    return {**values, "id": run.id, "diverged": "yes" if run.diverged else ""}


def _log(client: Client, row: dict[str, Any]) -> Any:
    facts: list[Component] = []
    try:
        facts = [_facts(client.run(row["id"]))]
        text = client.run_log(row["id"])
    except LoraAlphaError as error:
        text = str(error)
    trained = row["state"] == "finished" and not row["diverged"] and row["rank"] is not None
    adapter = html.A(
        dmc.Button("Download as PEFT adapter", variant="light", size="xs"),
        href=f"/download/adapter/{row['id']}.zip",
        download=f"adapter-{row['name']}.zip",
    )
    log = html.Pre(text, style={"whiteSpace": "pre-wrap", "fontSize": 12})
    return [*facts, *([adapter] if trained else []), log], True, row["name"]


def _facts(run: Run) -> Component:
    """What the run was, and what came out, most of it as in runs.csv."""
    ended = f"{number(run.final_loss)} at step {run.step} of {run.steps}"
    best = "–" if run.best_loss is None else f"{number(run.best_loss)} at step {run.best_step}"
    more = {name: value for name, value in sorted(run.summary.items()) if name != "forgetting_loss"}
    rows = [
        ["method", f"{run.method}, seed {run.seed}"],
        ["rank, α, s", f"{run.rank or '–'}, {number(run.alpha)}, {number(run.scale)}"],
        ["η", number(run.lr) + ("" if run.lr_ratio == 1 else f", B's × {number(run.lr_ratio)}")],
        ["α over time", run.alpha_schedule],
        ["final loss", "diverged" if run.diverged else ended],
        ["best loss", best],
        ["forgetting", number(run.forgetting)],
        ["seconds", number(run.duration_s)],
        *[[name.replace("_", " "), number(value)] for name, value in more.items()],
    ]
    return table(["", ""], rows, min_width=260)


TAB = Tab(
    page="sweep",
    name="runs",
    title="Runs",
    parts=(Part(GRID, "rowData"),),
    fetch=fetch,
    draw=draw,
    panel=panel,
    register=register,
)
