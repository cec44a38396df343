"""Tab of a sweep with its law, what common rules cost against it, and which α to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import MATCH, Dash, dcc, html, no_update
from dash.development.base_component import Component

from dashboard.components.one_click import act_once
from dashboard.components.parts import behind, card, note, notes, table
from dashboard.controls import Control, Subject, choice, switch, typed
from dashboard.figures.law import NOTHING, law_figure, law_name
from dashboard.figures.style import Theme, interval, number
from dashboard.tab import Plot, Row, Tab, Words
from dashboard.tabs.alpha_eta import READING, middle_rank, reading, typed_number
from lora_alpha.conventions import ENGINES
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import WITHIN_BASIN, Advice, Law, Laws, RuleCost
from lora_alpha.wire.client import Client

TEXT, TABLES = Words("law-text"), Words("law-table")
LAW = Plot("law-figure", height=540)
ADVICE = Words("advice")


@dataclass(frozen=True)
class Found:
    """The laws, and the α for the rank that was named: None where none was, a text where there is none."""

    laws: Laws
    advice: Advice | str | None


def panel(_: Subject, row: Row) -> Component:
    """The law, what it says, and which α to use."""
    return html.Div(
        [
            card(*TEXT.place(), row("target", "rules"), *LAW.place(), *TABLES.place()),
            card(
                row("advice_rank", "advice_lr", "advice_for", "max_forgetting"),
                *ADVICE.place(),
                title="What to use",
            ),
        ]
    )


def fetch(client: Client, view: Mapping[str, Any]) -> Found:
    """Laws and advice."""
    laws = client.law(view["sweep"], target=view["target"], **reading(view))
    return Found(laws, _ask(client, view) if view["advice_rank"] else None)


def draw(found: Found, view: Mapping[str, Any], colours: Theme) -> tuple[Any, ...]:
    """What the law says, the law, its tables, the advice."""
    laws = found.laws
    figure = law_figure(laws.laws, colours, rules=laws.rules if view["rules"] == "shown" else None)
    advice = no_update if found.advice is None else _advice(found.advice, view["advice_for"])
    return _law_text(laws), figure, [_law_tables(law, laws.laws) for law in laws.laws], advice


def register(app: Dash, client: Client) -> None:
    """The button that extends the grid: one beside each law that ends at its edge."""
    act_once(app, client, _extend_button(MATCH), _extend)


def _extend_button(law: Any) -> dict[str, Any]:
    return {"type": "extend", "law": law}


def _law_text(laws: Laws) -> list[Component]:
    parts: list[Component] = []
    for place, law in enumerate(laws.laws):
        name = law_name(law, laws.laws)
        head = "" if name == "measured" else f"{name}: "
        fit = law.fit
        if fit is not None:
            equation = f"α* = {fit.coefficient:.0f} · r^{fit.exponent:.2f}"
            if law.target == "lr":
                equation = f"η* = {number(fit.coefficient)} · r^{fit.exponent:.2f}"
            after = "" if laws.steps is None else f" after {laws.steps:,} steps"
            parts.append(dmc.Text(f"{head}{equation}{after}", fw=700, className="verdict"))
        parts.append(dmc.Text(law.verdict, size="sm"))
        parts += [dmc.Text(caveat, size="sm", c="dimmed") for caveat in law.caveats]
        counted = (
            f"{law.num_ranks} ranks, {law.num_seeds} seeds; {law.num_censored} optima censored, "
            f"{law.num_diverged} runs diverged."
        )
        parts.append(dmc.Text(counted, size="sm", c="dimmed", mb="xs"))
        edges = [optimum.rank for optimum in law.optima if optimum.censored.endswith("edge")]
        if edges:
            at = ", ".join(map(str, edges))
            text = f"At rank {at} the best α is the last one measured: the true one lies beyond."
            button = dmc.Button(
                "Extend the grid by two octaves", id=_extend_button(place), size="xs", mt="xs"
            )
            parts.append(note("The grid ends too early", [text, html.Br(), button]))
    parts += [dmc.Text(reason, c="dimmed") for reason in laws.reasons]
    chosen = dmc.Text(f"α chosen by {laws.metric.title}.", size="sm", c="dimmed")
    return [*parts, chosen, *notes([*laws.notes, *laws.warnings])]


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
    headings = ["rank", star, "95 %", "scale s*", basin, "octaves", "value", "censored"]
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
            cells.append("not run" if cost is None else _above(cost))
        rows.append([rule, *cells])
    caption = (
        f"above the best measured α, shares {law.rules[0].share_of}; in brackets: 95 % of what is estimated"
    )
    return table(["rule", *[f"r = {rank}" for rank in ranks]], rows, caption=caption)


def _above(cost: RuleCost) -> str:
    """What an α costs, measured and estimated: in the metric's unit, and as a share where there is one."""
    if cost.diverged:
        return "diverged"
    low, high = cost.regret_low, cost.regret_high
    estimated = "" if low is None or high is None else f" [{number(low)} to {number(high)}]"
    if cost.excess is None:
        return f"not run ({cost.reason})" if cost.regret is None else f"≈ {number(cost.regret)}{estimated}"
    share = "" if cost.cost is None else f", {cost.cost:+.1%}"
    return f"{number(cost.excess)} {cost.unit}{share}{estimated}"


def _ask(client: Client, view: Mapping[str, Any]) -> Advice | str:
    lr = str(view["advice_lr"])
    try:
        wanted = float(lr) if lr else None
    except ValueError:
        return f"got learning rate {lr!r}: write a number such as 2e-4"
    try:
        return client.recommend(
            view["sweep"],
            rank=int(view["advice_rank"]),
            lr=wanted,
            max_forgetting=typed_number(view["max_forgetting"]),
            **reading(view),
        )
    except LoraAlphaError as error:
        return str(error)


def _advice(answer: Advice | str, trainer: str) -> Component:
    if isinstance(answer, str):
        return note("No advice yet", answer)
    snippet = answer.snippets.get(trainer, answer.snippet)
    parts: list[Component] = [
        dmc.Text(f"α = {_written(answer.alpha)}", fw=700, fz=30, lh=1.2),
        dmc.Text(
            f"scale s = {answer.scale:.6g}; 95 % interval "
            f"{_range(answer.alpha_low, answer.alpha_high)}; {answer.basis}, "
            f"{answer.num_supporting_runs} runs behind it",
            size="sm",
            c="dimmed",
        ),
        dmc.Group(
            [
                dmc.Code(snippet, block=True, my="sm", style={"flex": 1}),
                dcc.Clipboard(content=snippet, title="Copy"),
            ],
            align="start",
        ),
        *_bounded(answer),
        *notes([*answer.notes, *answer.warnings]),
    ]
    if answer.regrets:
        rows = [[cost.rule, number(cost.alpha), _above(cost)] for cost in answer.regrets]
        caption = f"above the best measured α of this rank, shares {answer.regrets[0].share_of}"
        parts.append(behind("Table: what α costs here", table(["", "α", "cost"], rows, caption=caption)))
    return html.Div(parts)


def _written(value: float) -> str:
    """α in all of its digits: the number of the snippet."""
    return f"{value:.15g}"


def _range(low: float | None, high: float | None) -> str:
    return "unknown" if low is None or high is None else f"{_written(low)} to {_written(high)}"


def _bounded(answer: Advice) -> list[Component]:
    """The best α within the bound on forgetting, where one was asked for."""
    found = answer.bounded
    if found is None:
        return []
    head = f"forgetting ≤ {number(found.max_forgetting)}: "
    if found.alpha is None:
        return [note(head + "no α", found.reason)]
    ends = [("down to", found.boundary_low), ("up to", found.boundary_high)]
    reach = " ".join(f"It holds {word} about α = {number(end)}." for word, end in ends if end is not None)
    text = f"{found.reason}; forgetting there {number(found.forgetting)}. {reach}"
    return [note(f"{head}best measured α = {number(found.alpha)}", text, colour="blue")]


def _extend(client: Client, view: Mapping[str, Any]) -> str:
    try:
        law = client.law(view["sweep"], **reading(view))
        alphas = sorted(client.sweep(view["sweep"]).spec["alphas"])
        sides = {optimum.censored for item in law.laws for optimum in item.optima}
        new = [alphas[0] / 2, alphas[0] / 4] if "low_edge" in sides else []
        new += [alphas[-1] * 2, alphas[-1] * 4] if "high_edge" in sides else []
        client.extend_sweep(view["sweep"], {"alphas": new})
    except LoraAlphaError as error:
        return f"Not extended: {error}"
    return f"Added α = {', '.join(number(alpha) for alpha in new)}"


def _rank_input(component_id: Any, value: Any, _: Subject) -> Component:
    return dmc.NumberInput(
        id=component_id,
        label="Rank you will train with",
        value=int(value) if str(value).isdigit() else "",
        min=1,
        max=4096,
        size="xs",
        debounce=400,
    )


TARGETS = [{"value": "alpha", "label": "α*(r)"}, {"value": "lr", "label": "η*(r)"}]
TRAINERS = [{"value": engine.name, "label": engine.title} for engine in ENGINES.values()]
TAB = Tab(
    page="sweep",
    name="law",
    title="Law",
    controls=(
        switch("target", "Fit", "alpha", TARGETS),
        switch("rules", "Rules and slopes", "shown", ["shown", "hidden"]),
        Control(name="advice_rank", default=middle_rank, show=_rank_input, of_sweep=True),
        typed("advice_lr", "Learning rate (empty: as swept)"),
        choice("advice_for", "Trainer", "peft", TRAINERS),
        typed("max_forgetting", "Largest forgetting (empty: any)"),
    ),
    reads=READING,
    parts=(TEXT, LAW, TABLES, ADVICE),
    fetch=fetch,
    draw=draw,
    empty=NOTHING,
    panel=panel,
    register=register,
)
