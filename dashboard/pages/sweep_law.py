"""Tab of a sweep with its law, what common rules cost against it, and which α to use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, card, figure, note, notes, switch, table
from dashboard.connection import Connect
from dashboard.figures.law import law_figure, law_name
from dashboard.figures.style import empty, number, theme
from dashboard.pages.laws import interval
from dashboard.pages.sweep_training import reading
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import WITHIN_BASIN, Law, Laws
from lora_alpha.wire.sweeps import Sweep

DEFAULTS: dict[str, Any] = {"target": "alpha", "rules": "shown", "advice_rank": "", "advice_lr": ""}


def law_panel(sweep: Sweep, view: Mapping[str, Any]) -> Component:
    """The law, what it says, and which α to use."""
    ranks = sweep.spec["ranks"]
    return html.Div(
        [
            card(
                html.Div(id=ids.LAW_TEXT),
                html.Div(
                    [
                        switch(
                            ids.view("target"),
                            "Fit",
                            view["target"],
                            [{"value": "alpha", "label": "α*(r)"}, {"value": "lr", "label": "η*(r)"}],
                        ),
                        switch(ids.view("rules"), "Rules and slopes", view["rules"], ["shown", "hidden"]),
                    ],
                    className="controls",
                ),
                figure(ids.LAW, height=540),
                html.Div(id=ids.LAW_TABLE),
            ),
            card(
                html.Div(
                    [
                        dmc.NumberInput(
                            id=ids.view("advice_rank"),
                            label="Rank you will train with",
                            value=int(view["advice_rank"] or ranks[len(ranks) // 2]),
                            min=1,
                            max=4096,
                            size="xs",
                            debounce=400,
                        ),
                        dmc.TextInput(
                            id=ids.view("advice_lr"),
                            label="Learning rate (empty: as swept)",
                            value=view["advice_lr"],
                            size="xs",
                            debounce=400,
                        ),
                    ],
                    className="controls",
                ),
                html.Div(id=ids.ADVICE),
                title="What to use",
            ),
        ]
    )


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the tab."""

    @app.callback(
        Output(ids.LAW, "figure"),
        Output(ids.LAW_TEXT, "children"),
        Output(ids.LAW_TABLE, "children"),
        Input(ids.SWEEP_PULSE, "data"),
        Input(ids.SWEEP_VIEW, "data"),
        Input(ids.THEME, "data"),
        State(ids.SWEEP_ID, "data"),
    )
    async def law(_: str, view: dict[str, Any], theme_name: str, sweep_id: str) -> Any:
        if view["tab"] != "law":
            return no_update, no_update, no_update
        return await asyncio.to_thread(_law, connect, sweep_id, view, theme_name)

    @app.callback(
        Output(ids.ADVICE, "children"),
        Input(ids.SWEEP_PULSE, "data"),
        Input(ids.SWEEP_VIEW, "data"),
        Input(ids.view("advice_rank"), "value"),
        State(ids.SWEEP_ID, "data"),
    )
    async def advice(_: str, view: dict[str, Any], rank: Any, sweep_id: str) -> Any:
        if view["tab"] != "law" or not rank:
            return no_update
        return await asyncio.to_thread(_advice, connect, sweep_id, int(rank), str(view["advice_lr"]))

    @app.callback(
        Output(ids.EXTEND, "children"),
        Output(ids.EXTEND, "disabled"),
        Input(ids.EXTEND, "n_clicks"),
        State(ids.SWEEP_ID, "data"),
        State(ids.SWEEP_VIEW, "data"),
        prevent_initial_call=True,
    )
    async def extend(clicks: int | None, sweep_id: str, view: dict[str, Any]) -> Any:
        if not clicks:
            return no_update, no_update
        return await asyncio.to_thread(_extend, connect, sweep_id, view), True


def _law(connect: Connect, sweep_id: str, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            laws = client.law(sweep_id, target=view["target"], **reading(view))
    except LoraAlphaError as error:
        return empty(colours, str(error)), note("No law", str(error), colour="red"), no_update
    figure = law_figure(laws.laws, colours, rules=laws.rules if view["rules"] == "shown" else None)
    return figure, _law_text(laws), [_law_tables(law, laws.laws) for law in laws.laws]


def _law_text(laws: Laws) -> list[Component]:
    parts: list[Component] = []
    for law in laws.laws:
        name = law_name(law, laws.laws)
        head = "" if name == "measured" else f"{name}: "
        fit = law.fit
        if fit is not None:
            equation = f"α* = {fit.coefficient:.0f} · r^{fit.exponent:.2f}"
            if law.target == "lr":
                equation = f"η* = {number(fit.coefficient)} · r^{fit.exponent:.2f}"
            parts.append(dmc.Text(f"{head}{equation}", fw=700, className="verdict"))
        parts.append(dmc.Text(law.verdict, size="sm"))
        counted = (
            f"{law.num_ranks} ranks, {law.num_seeds} seeds; {law.num_censored} optima censored, "
            f"{law.num_diverged} runs diverged."
        )
        parts.append(dmc.Text(counted, size="sm", c="dimmed", mb="xs"))
        edges = [optimum.rank for optimum in law.optima if optimum.censored.endswith("edge")]
        if edges:
            at = ", ".join(map(str, edges))
            text = f"At rank {at} the best α is the last one measured: the true one lies beyond."
            button = dmc.Button("Extend the grid by two octaves", id=ids.EXTEND, size="xs", mt="xs")
            parts.append(note("The grid ends too early", [text, html.Br(), button]))
    parts += [dmc.Text(reason, c="dimmed") for reason in laws.reasons]
    return [*parts, *notes(laws.warnings)]


def _law_tables(law: Law, among: list[Law]) -> Component:
    star = "α*" if law.target == "alpha" else "η*"
    rows = [
        [
            str(o.rank),
            number(float(f"{o.value:.3g}")),
            interval(o.low, o.high, digits=0)
            if law.target == "alpha"
            else f"{number(o.low)} to {number(o.high)}",
            number(o.scale),
            f"{number(float(f'{o.basin_low:.3g}'))} to {number(float(f'{o.basin_high:.3g}'))}",
            f"{o.basin_octaves:.1f}{'+' if o.basin_open_low or o.basin_open_high else ''}",
            number(o.loss),
            o.censored.replace("_", " "),
        ]
        for o in law.optima
    ]
    basin = f"{WITHIN_BASIN} of the best"
    headings = ["rank", star, "95 %", "scale s*", basin, "octaves", "loss", "censored"]
    parts = [behind("Table: optima", table(headings, rows))]
    if law.rules:
        parts.append(behind("Table: what common rules cost", _rules(law)))
    if law.rivals:
        rival_rows = [
            [
                r.name,
                number(r.exponent),
                f"{r.octaves:.2f}",
                f"{r.in_basin} of {r.num_judged}",
                str(r.calibrated_at),
                r.source,
            ]
            for r in law.rivals
        ]
        rival_headings = ["prediction", "p", "mean error, octaves", WITHIN_BASIN, "calibrated at r", "source"]
        parts.append(
            behind(
                "Table: rival exponents, calibrated at one rank, judged on the others",
                table(rival_headings, rival_rows),
            )
        )
    if law.models:
        model_rows = [
            [m.name, "" if m.exponent is None else f"{m.exponent:.2f}", f"{m.aicc:.1f}", f"{m.delta:.1f}"]
            for m in law.models
        ]
        parts.append(
            behind("Table: exponents compared by AICc", table(["model", "p", "AICc", "Δ"], model_rows))
        )
    name = law_name(law, among)
    return html.Div([dmc.Text(name, fw=600, mt="sm"), *parts] if len(among) > 1 else parts)


def _rules(law: Law) -> Component:
    ranks = sorted({cost.rank for cost in law.rules})
    costs = {(cost.rule, cost.rank): cost for cost in law.rules}
    rows = []
    for rule in dict.fromkeys(cost.rule for cost in law.rules):
        cells = []
        for rank in ranks:
            cost = costs.get((rule, rank))
            if cost is None or not cost.measured:
                cells.append("not run")
            else:
                cells.append("diverged" if cost.cost is None else f"{cost.cost:+.1%}")
        rows.append([rule, *cells])
    return table(["rule", *[f"r = {rank}" for rank in ranks]], rows, caption="loss above the best measured α")


def _advice(connect: Connect, sweep_id: str, rank: int, lr: str) -> Component:
    try:
        with connect() as client:
            answer = client.recommend(sweep_id, rank=rank, lr=float(lr) if lr else None)
    except ValueError:
        return note("Learning rate", f"got {lr!r}: write a number such as 2e-4", colour="red")
    except LoraAlphaError as error:
        return note("No advice yet", str(error))
    parts: list[Component] = [
        dmc.Text(f"α = {answer.alpha:.0f}", fw=700, fz=30, lh=1.2),
        dmc.Text(
            f"scale s = {number(float(f'{answer.scale:.3g}'))}; 95 % interval "
            f"{interval(answer.alpha_low, answer.alpha_high, digits=0)}; {answer.basis}, "
            f"{answer.num_supporting_runs} runs behind it",
            size="sm",
            c="dimmed",
        ),
        dmc.Code(answer.snippet, block=True, my="sm"),
        *notes(answer.warnings),
    ]
    return html.Div(parts)


def _extend(connect: Connect, sweep_id: str, view: Mapping[str, Any]) -> str:
    try:
        with connect() as client:
            law = client.law(sweep_id, **reading(view))
            alphas = sorted(client.sweep(sweep_id).spec["alphas"])
            sides = {optimum.censored for item in law.laws for optimum in item.optima}
            new = [alphas[0] / 2, alphas[0] / 4] if "low_edge" in sides else []
            new += [alphas[-1] * 2, alphas[-1] * 4] if "high_edge" in sides else []
            client.extend_sweep(sweep_id, {"alphas": new})
    except LoraAlphaError as error:
        return f"Not extended: {error}"
    return f"Added α = {', '.join(number(alpha) for alpha in new)}"
