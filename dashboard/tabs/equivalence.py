"""Tab of a sweep that asks whether α is a second learning rate, and which coordinate decides the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, dcc, html
from dash.development.base_component import Component

from dashboard.components.one_click import act_once
from dashboard.components.parts import GRAPH_CONFIG, card, note, table
from dashboard.controls import Subject, choice, switch
from dashboard.figures.equivalence import (
    BEST,
    EQUAL_FLOORS,
    FITTED,
    MEASURED_FLOORS,
    NOTHING,
    collapse_figure,
    routes_figure,
)
from dashboard.figures.style import Theme, number
from dashboard.tab import Plot, Row, Tab, Words
from dashboard.tabs.alpha_eta import READING, reading
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import COORDINATES, SAID, Collapse, Equivalence, Equivalences, Exponent
from lora_alpha.wire.client import Client

ROUTES, SCORES = Words("alpha-vs-lr"), Words("collapse-figure-table")
COLLAPSE = Plot("collapse-figure", height=420)
EXTEND_LRS = "extend-lrs-button"
DECIDE = "deciding-cells-button"
MORE_LRS = (4, 16)
VERDICTS = {
    "equivalent": ("teal", "Equivalent: raising α did what raising η does, within the margin."),
    "alpha_better": ("blue", "α better: raising α did better than raising η."),
    "lr_better": ("orange", "η better: raising η did better than raising α. The claim fails here."),
    "undecided": ("gray", "Undecided."),
    "mixed": ("gray", "Ranks disagree."),
    "not_enough_data": ("gray", "Not enough data to decide."),
}


def panel(_: Subject, row: Row) -> Component:
    """α against η, and the coordinates that may unite them."""
    return html.Div(
        [
            card(*ROUTES.place(), title="Is α a second learning rate?"),
            card(row(), *COLLAPSE.place(), *SCORES.place(), title="Which coordinate decides the loss?"),
        ]
    )


def register(app: Dash, client: Client) -> None:
    """The buttons that add learning rates, and the runs that would decide."""
    act_once(app, client, EXTEND_LRS, _extend_lrs)
    act_once(app, client, DECIDE, _run_deciding)


def fetch(client: Client, view: Mapping[str, Any]) -> tuple[Equivalences, Collapse]:
    """Both routes, and the scores of the coordinates."""
    asked = reading(view)
    return client.equivalence(view["sweep"], **asked), client.collapse(view["sweep"], **asked)


def draw(found: tuple[Equivalences, Collapse], view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """The verdict with its routes, the best coordinate, the scores."""
    routes, collapse = found
    colour, sentence = VERDICTS[routes.verdict]
    rows = [
        [
            item.method,
            str(item.rank),
            f"α {number(item.base_alpha)}, η {number(item.base_lr)}",
            f"{number(item.loss_alpha_route)} at α {number(item.best_alpha)}",
            f"{number(item.loss_lr_route)} at η {number(item.best_lr)}",
            *_differences(item),
            f"{item.diverged_alpha_route} / {item.diverged_lr_route}",
            SAID[item.verdict],
            dmc.Text(item.reason, size="sm", style={"whiteSpace": "normal", "minWidth": 240}),
        ]
        for item in routes.items
    ]
    headings = [
        "method",
        "r",
        "from",
        "α route",
        "η route",
        "difference",
        "α − η",
        "diverged α / η",
        "verdict",
        "why",
    ]
    parts = [
        note(
            sentence,
            "; ".join(
                [*routes.reasons, f"margin ±{routes.margin:.0%}, minima between cells, paired by seed"]
            ),
            colour=colour,
        ),
        *_more_lrs(routes.items),
        *_decide(routes.items),
        *(
            [_routes_graph(routes.items, colours)]
            if any(i.difference is not None for i in routes.items)
            else []
        ),
        table(headings, rows),
    ]
    figure = collapse_figure(collapse, colours, coordinate=view["coordinate"], floors=view["floors"])
    return parts, figure, [*_collapse_words(collapse), _score_table(collapse)]


def _collapse_words(collapse: Collapse) -> list[Component]:
    return [dmc.Text(text, fw=600) for text in [fit.sentence for fit in collapse.fits] or collapse.reasons]


def _score_table(collapse: Collapse) -> Component:
    """Every coordinate, then the fitted one of each method."""
    ceilings = {(fit.method, fit.lr_ratio): fit.ceiling for fit in collapse.fits}
    rows = [
        [
            item.method,
            item.coordinate,
            *(f"{exponent:g}" for exponent in item.exponents),
            number(item.score),
            number(ceilings.get((item.method, item.lr_ratio))),
            "–"
            if item.behind is None
            else f"{item.behind:.3f} ({item.behind_low:.3f} to {item.behind_high:.3f})",
            {None: "–", True: "yes", False: "no"}[item.compatible],
            str(item.num_compared),
            str(item.num_alone),
        ]
        for item in collapse.items
    ]
    for fit in collapse.fits:
        if fit.alpha is not None or fit.lr is not None:
            exponents = [_exponent(fit.alpha), _exponent(fit.lr), _exponent(fit.rank)]
            score = fit.fitted.score if fit.fitted else None
            counts = [str(fit.fitted.num_compared), str(fit.fitted.num_alone)] if fit.fitted else ["–", "–"]
            rows.append(
                [fit.method, "fitted", *exponents, number(score), number(fit.ceiling), "–", "–", *counts]
            )
    headings = ["method", "coordinate", "of α", "of η", "of r", "score", "noise allows", "behind the first"]
    return table([*headings, "compatible", "points compared", "without overlap"], rows)


def _exponent(exponent: Exponent | None) -> str:
    if exponent is None:
        return "not identified"
    if exponent.low == exponent.high:
        return f"{exponent.value:g}"
    return f"{exponent.value:.2f} ({exponent.low:.2f} to {exponent.high:.2f})"


def _more_lrs(items: Sequence[Equivalence]) -> list[Component]:
    """Where only one η was swept: a button that runs the grid at larger ones."""
    lrs = {item.base_lr for item in items} | {item.best_lr for item in items if item.best_lr is not None}
    if len(lrs) != 1:
        return []
    text = (
        f"This sweep knows one learning rate. Run its grid at η × {' and η × '.join(map(str, MORE_LRS))} too"
    )
    return [dmc.Button(text, id=EXTEND_LRS, variant="light", size="xs", my="sm")]


def _decide(items: Sequence[Equivalence]) -> list[Component]:
    """A button that runs what would decide the open comparisons, and nothing else."""
    num_runs = len(_deciding(items))
    if not num_runs:
        return []
    text = f"Run the cells that would decide ({num_runs} runs)"
    return [dmc.Button(text, id=DECIDE, variant="light", size="xs", my="sm")]


def _deciding(items: Sequence[Equivalence]) -> list[dict[str, Any]]:
    return [run for item in items for cell in item.deciding_cells for run in cell.configurations]


def _run_deciding(client: Client, view: Mapping[str, Any]) -> str:
    try:
        before = client.sweep(view["sweep"]).counts.total
        cells = _deciding(client.equivalence(view["sweep"], **reading(view)).items)
        sweep = client.extend_sweep(view["sweep"], {"cells": cells})
    except LoraAlphaError as error:
        return f"Not extended: {error}"
    return f"Queued: {sweep.counts.total - before} runs"


def _differences(item: Equivalence) -> tuple[str, str]:
    """The difference as a share, and in the metric's unit."""
    share = "–" if item.difference is None else f"{item.difference:+.1%}"
    return share, "–" if item.gap is None else f"{item.gap:+.3g}"


def _extend_lrs(client: Client, view: Mapping[str, Any]) -> str:
    try:
        lr = max(client.sweep(view["sweep"]).spec["lrs"])
        sweep = client.extend_sweep(view["sweep"], {"lrs": [factor * lr for factor in MORE_LRS]})
    except LoraAlphaError as error:
        return f"Not extended: {error}"
    return f"Queued: the sweep has {sweep.counts.total} runs now"


def _routes_graph(items: Sequence[Equivalence], colours: Theme) -> Component:
    return dcc.Graph(figure=routes_figure(items, colours), config=GRAPH_CONFIG, style={"height": "340px"})


TAB = Tab(
    page="sweep",
    name="equivalence",
    title="α vs η",
    controls=(
        choice("coordinate", "Coordinate", BEST, [BEST, *COORDINATES, FITTED]),
        switch("floors", "Floors of ranks", EQUAL_FLOORS, [EQUAL_FLOORS, MEASURED_FLOORS]),
    ),
    reads=READING,
    parts=(ROUTES, COLLAPSE, SCORES),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
    panel=panel,
    register=register,
)
