"""Laws of several sweeps in one plot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view, write_view
from dashboard.components.parts import card, figure, note, nothing_here, table
from dashboard.figures.law import law_figure
from dashboard.figures.style import empty, interval, number, theme
from lora_alpha.errors import LoraAlphaError
from lora_alpha.metrics import EVAL_LOSS
from lora_alpha.wire.analysis import Law, Rule
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

DEFAULTS: dict[str, Any] = {"sweeps": []}
NEWEST, FEWEST_RANKS = 8, 3


def layout(search: str | None, client: Client) -> Component:
    """Choose sweeps; the newest finished one of each workload unless the address says otherwise."""
    found = client.sweeps(limit=200).items
    if not found:
        return nothing_here(
            "No laws to compare yet", "Laws appear once sweeps have run.", "/new", "New sweep"
        )
    chosen = read_view(search, DEFAULTS)["sweeps"]
    chosen = chosen or _worth_comparing(found)
    data = [{"value": sweep.id, "label": f"{sweep.name} ({sweep.workload})"} for sweep in found]
    return html.Div(
        [
            dmc.Title("Compare laws", order=2, mb="md"),
            dmc.MultiSelect(
                id=ids.LAWS_SWEEPS, label="Sweeps", value=chosen, data=data, searchable=True, mb="md"
            ),
            card(figure(ids.LAWS_FIGURE, height=560)),
            card(html.Div(id=ids.LAWS_TABLE), title="Exponents and coefficients"),
        ]
    )


def _worth_comparing(sweeps: Sequence[Sweep]) -> list[str]:
    """The newest finished sweep over several ranks of each workload."""
    ready = [
        sweep
        for sweep in sweeps
        if sweep.state == "finished"
        and sweep.spec.get("methods")  # else it has explicit cells alone
        and len(sweep.spec.get("ranks", [])) >= FEWEST_RANKS
    ]
    newest = {sweep.workload: sweep.id for sweep in reversed(ready)}
    return [sweep.id for sweep in ready if sweep.id in newest.values()][:NEWEST]


def register(app: Dash, client: Client) -> None:
    """The page's callbacks."""

    @app.callback(
        Output(ids.LAWS_FIGURE, "figure"),
        Output(ids.LAWS_TABLE, "children"),
        Input(ids.LAWS_SWEEPS, "value"),
        Input(ids.THEME, "data"),
    )
    async def draw(sweeps: list[str], theme_name: str) -> Any:
        return await asyncio.to_thread(_draw, client, sweeps, theme_name)

    @app.callback(
        Output(ids.URL, "search", allow_duplicate=True),
        Input(ids.LAWS_SWEEPS, "value"),
        prevent_initial_call=True,
    )
    async def remember(sweeps: list[str]) -> str:
        return write_view({"sweeps": sweeps}, DEFAULTS)


def _draw(client: Client, sweeps: list[str], theme_name: str) -> Any:
    colours = theme(theme_name)
    laws: list[tuple[str, Law]] = []
    rules: list[Rule] = []
    try:
        for sweep_id in sweeps:
            name, found = client.sweep(sweep_id).name, client.law(sweep_id)
            name += "" if found.metric.name == EVAL_LOSS.name else f", by {found.metric.name}"
            laws += [(name, law) for law in found.laws]
            rules = found.rules
    except LoraAlphaError as error:
        return empty(colours, "No data."), note("The service does not answer", str(error), colour="red")
    drawn, names = [law for _, law in laws], [name for name, _ in laws]
    figure = law_figure(drawn, colours, rules=rules, names=names)
    headings = [
        "sweep",
        "method",
        "η",
        "p",
        "95 %",
        "C",
        "95 %",
        "ranks",
        "seeds",
        "censored",
        "diverged",
        "verdict",
    ]
    return figure, table(headings, [_row(name, law) for name, law in laws])


def _row(name: str, law: Law) -> list[Any]:
    fit = law.fit
    verdict = dmc.Text(law.verdict, size="sm", style={"whiteSpace": "normal", "minWidth": 260})
    tail = [str(law.num_ranks), str(law.num_seeds), str(law.num_censored), str(law.num_diverged), verdict]
    if fit is None:
        return [name, law.method, number(law.lr), "–", "", "–", "", *tail]
    return [
        name,
        law.method,
        number(law.lr),
        f"{fit.exponent:.2f}",
        interval(fit.exponent_low, fit.exponent_high, digits=2),
        f"{fit.coefficient:.0f}",
        interval(fit.coefficient_low, fit.coefficient_high, digits=0),
        *tail,
    ]
