"""Tab of a sweep that asks whether α is a second learning rate, and which coordinate decides the loss."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import GRAPH_CONFIG, card, figure, note, table
from dashboard.connection import Connect
from dashboard.figures.equivalence import collapse_figure, routes_figure
from dashboard.figures.style import Theme, empty, number, theme
from dashboard.pages.sweep_training import reading
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import Equivalence

MORE_LRS = (4, 16)
VERDICTS = {
    "equivalent": ("teal", "Equivalent: raising α did what raising η does, within the margin."),
    "alpha_better": ("blue", "α better: raising α reached a lower loss than raising η."),
    "lr_better": ("orange", "η better: raising η reached a lower loss than raising α. The claim fails here."),
    "undecided": ("gray", "Undecided: the interval is too wide."),
    "mixed": ("gray", "Ranks disagree."),
    "not_enough_data": ("gray", "Not enough data to decide."),
}
SHORT = {
    "equivalent": "equivalent",
    "alpha_better": "α better",
    "lr_better": "η better",
    "undecided": "undecided",
    "mixed": "ranks disagree",
    "not_enough_data": "not enough data",
}


def equivalence_panel() -> Component:
    """α against η, and the coordinates that may unite them."""
    return html.Div(
        [
            card(
                html.Div(id=ids.ALPHA_VS_LR),
                title="Is α a second learning rate?",
            ),
            card(
                figure(ids.COLLAPSE, height=420),
                html.Div(id=f"{ids.COLLAPSE}-table"),
                title="Which coordinate decides the loss?",
            ),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the tab."""

    @app.callback(
        Output(ids.ALPHA_VS_LR, "children"),
        Output(ids.COLLAPSE, "figure"),
        Output(f"{ids.COLLAPSE}-table", "children"),
        Input(ids.SWEEP_PULSE, "data"),
        Input(ids.SWEEP_VIEW, "data"),
        Input(ids.THEME, "data"),
        State(ids.SWEEP_ID, "data"),
    )
    async def compare(_: str, view: dict[str, Any], theme_name: str, sweep_id: str) -> Any:
        if view["tab"] != "equivalence":
            return no_update, no_update, no_update
        return await asyncio.to_thread(_compare, connect, sweep_id, view, theme_name)

    @app.callback(
        Output(ids.EXTEND_LRS, "children"),
        Output(ids.EXTEND_LRS, "disabled"),
        Input(ids.EXTEND_LRS, "n_clicks"),
        State(ids.SWEEP_ID, "data"),
        prevent_initial_call=True,
    )
    async def extend_lrs(clicks: int | None, sweep_id: str) -> Any:
        if not clicks:
            return no_update, no_update
        return await asyncio.to_thread(_extend_lrs, connect, sweep_id), True


def _compare(connect: Connect, sweep_id: str, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            routes = client.equivalence(sweep_id, **reading(view))
            collapse = client.collapse(sweep_id, **reading(view))
    except LoraAlphaError as error:
        return note("No data", str(error), colour="red"), empty(colours, str(error)), no_update
    colour, sentence = VERDICTS[routes.verdict]
    rows = [
        [
            item.method,
            str(item.rank),
            f"α {number(item.base_alpha)}, η {number(item.base_lr)}",
            f"{number(item.loss_alpha_route)} at α {number(item.best_alpha)}",
            f"{number(item.loss_lr_route)} at η {number(item.best_lr)}",
            "–" if item.difference is None else f"{item.difference:+.1%}",
            f"{item.diverged_alpha_route} / {item.diverged_lr_route}",
            SHORT[item.verdict],
            dmc.Text(item.reason, size="sm", style={"whiteSpace": "normal", "minWidth": 240}),
        ]
        for item in routes.items
    ]
    headings = ["method", "r", "from", "α route", "η route", "difference", "diverged α / η", "verdict", "why"]
    parts = [
        note(
            sentence,
            "; ".join(routes.reasons) or f"Margin ±{routes.margin:.0%}, paired by seed.",
            colour=colour,
        ),
        *_more_lrs(routes.items),
        *(
            [_routes_graph(routes.items, colours)]
            if any(i.difference is not None for i in routes.items)
            else []
        ),
        table(headings, rows),
    ]
    scores = [
        [item.method, item.coordinate, number(item.score), str(item.num_compared), str(item.num_alone)]
        for item in collapse.items
    ]
    score_table = table(["method", "coordinate", "score", "points compared", "without overlap"], scores)
    verdict = dmc.Text(
        f"Best coordinate: {collapse.verdict}."
        if collapse.verdict != "none"
        else "No coordinate collapses the curves.",
        fw=600,
    )
    return parts, collapse_figure(collapse, colours), [verdict, score_table]


def _more_lrs(items: Sequence[Equivalence]) -> list[Component]:
    """Where only one η was swept: a button that runs the grid at larger ones."""
    lrs = {item.base_lr for item in items} | {item.best_lr for item in items if item.best_lr is not None}
    if len(lrs) != 1:
        return []
    text = (
        f"This sweep knows one learning rate. Run its grid at η × {' and η × '.join(map(str, MORE_LRS))} too"
    )
    return [dmc.Button(text, id=ids.EXTEND_LRS, variant="light", size="xs", my="sm")]


def _extend_lrs(connect: Connect, sweep_id: str) -> str:
    try:
        with connect() as client:
            lr = max(client.sweep(sweep_id).spec["lrs"])
            sweep = client.extend_sweep(sweep_id, {"lrs": [factor * lr for factor in MORE_LRS]})
    except LoraAlphaError as error:
        return f"Not extended: {error}"
    return f"Queued: the sweep has {sweep.counts.total} runs now"


def _routes_graph(items: Sequence[Equivalence], colours: Theme) -> Component:
    return dcc.Graph(figure=routes_figure(items, colours), config=GRAPH_CONFIG, style={"height": "340px"})
