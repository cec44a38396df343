"""Tabs of a sweep with its runs, their logs, and the CSV exports."""

from __future__ import annotations

import asyncio
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import card, table
from dashboard.connection import Connect
from dashboard.figures.style import number
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.sweeps import Run, Sweep

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
EXPORTS = (
    ("runs", "One row a run: configuration, final and best loss, duration, error."),
    ("history", "One row a point: every metric of every run, never sampled."),
    ("cells", "Seeds taken together: n, mean, std, 95 % interval, diverged, failed."),
    ("optima", "Best α (and η) of every rank, with interval, basin and censoring."),
    ("law", "Fitted exponents and coefficients with intervals and counts."),
    ("probes", "Hessian probes: eigenvalues, densities, traces."),
)


def runs_panel() -> Component:
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
        id=ids.RUNS_GRID,
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
    return card(dmc.Text("Click a run for figures, log and adapter.", size="sm", c="dimmed", mb="xs"), grid)


def log_drawer() -> Component:
    """The log of the run that was clicked."""
    return dmc.Drawer(
        html.Div(id=ids.RUN_LOG),
        id=ids.RUN_DRAWER,
        title="Run",
        position="right",
        size="lg",
    )


def export_panel(sweep: Sweep) -> Component:
    """A link for each CSV; the browser streams it from the API."""
    rows = [
        [
            html.A(
                dmc.Button(f"{kind}.csv", variant="light", size="xs"),
                href=f"/download/{kind}.csv?sweep={sweep.id}",
                download=f"{kind}.csv",
                id={"type": "download", "kind": kind},
            ),
            text,
        ]
        for kind, text in EXPORTS
    ]
    return card(
        table(["file", "what it holds"], rows), title="Everything as CSV, complete and in full precision"
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the grid and its drawer."""

    @app.callback(
        Output(ids.RUNS_GRID, "rowData"),
        Input(ids.SWEEP_PULSE, "data"),
        Input(ids.SWEEP_VIEW, "data"),
        State(ids.SWEEP_ID, "data"),
    )
    async def rows(_: str, view: dict[str, Any], sweep_id: str) -> Any:
        if view["tab"] != "runs":
            return no_update
        return await asyncio.to_thread(_rows, connect, sweep_id)

    @app.callback(
        Output(ids.RUN_LOG, "children"),
        Output(ids.RUN_DRAWER, "opened"),
        Output(ids.RUN_DRAWER, "title"),
        Input(ids.RUNS_GRID, "selectedRows"),
        prevent_initial_call=True,
    )
    async def log(selected: list[dict[str, Any]] | None) -> Any:
        if not selected:
            return no_update, no_update, no_update
        return await asyncio.to_thread(_log, connect, selected[0])


def _rows(connect: Connect, sweep_id: str) -> Any:
    try:
        with connect() as client:
            return [_row(run) for run in client.all_runs(sweep_id)]
    except LoraAlphaError:
        return no_update


def _row(run: Run) -> dict[str, Any]:
    values = {field: getattr(run, field) for field, _, _ in COLUMNS}
    return {**values, "id": run.id, "diverged": "yes" if run.diverged else ""}


def _log(connect: Connect, row: dict[str, Any]) -> Any:
    facts: list[Component] = []
    try:
        with connect() as client:
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
