"""Plots of the curvature page: extremes, suppression, densities, best η."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Output, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import behind, figure, select, switch, table
from dashboard.connection import Connect
from dashboard.figures.curvature import X_AXES, extremes_figure, layers_of, steps_of
from dashboard.figures.density import density_figure, density_grid, density_name
from dashboard.figures.style import empty, number, theme
from dashboard.figures.suppression import rates_figure, suppression_figure
from dashboard.views import draw_tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.analysis import Curvature, Sharpness
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import Probe

ALL_LAYERS = "all layers"
DEFAULTS: dict[str, Any] = {"x": "s", "step": "0", "layer": ALL_LAYERS, "densities": []}
EXTREMES = (
    "Curvature is indefinite: both ends are shown, λ_min as −λ_min in the lower panel, downwards. "
    "Points are means over seeds, with their standard deviation; the dashed line is the full weight, "
    "shaded over the range of its probes."
)
SUPPRESSION = (
    "Below 1 the loss is flatter in LoRA coordinates than in full-weight ones: steps there can be larger. "
    "★ where both are equally sharp, | where a generic sharpest direction would be: √(3·in·r)."
)
RATES = (
    "One point is one (rank, α): the η with the lowest loss, and λ_max at the start, where B = 0. Open: the "
    "best η is the last one on the grid, or the last before a divergence. A preconditioned step (Adam) has "
    "no reason to follow 1/λ_max."
)
DENSITY = "Stochastic Lanczos quadrature; every node is drawn as a Gaussian of 1 % of the spectrum's extent."


def panels(view: Mapping[str, Any]) -> dict[str, Component]:
    """One panel a tab."""
    step = {"value": view["step"], "label": _step_name(int(view["step"]) if view["step"].isdigit() else 0)}
    layer = view["layer"]
    return {
        "extremes": html.Div(
            [
                html.Div(
                    [
                        switch(ids.curvature("x"), "Horizontal axis", view["x"], list(X_AXES)),
                        select(ids.curvature("step"), "At", view["step"], [step]),
                        select(ids.curvature("layer"), "Layer", layer, list({ALL_LAYERS: 0, layer: 0})),
                    ],
                    className="controls",
                ),
                figure(ids.EXTREMES, height=520),
                dmc.Text(EXTREMES, size="sm", c="dimmed"),
                html.Div(id=f"{ids.EXTREMES}-table"),
            ]
        ),
        "suppression": html.Div(
            [
                figure(ids.SUPPRESSION, height=440),
                dmc.Text(SUPPRESSION, size="sm", c="dimmed"),
                html.Div(id=f"{ids.SUPPRESSION}-table"),
            ]
        ),
        "density": html.Div(
            [
                dmc.MultiSelect(
                    id=ids.curvature("densities"),
                    label="Probes",
                    value=list(view["densities"]),
                    data=[],
                    placeholder="" if view["densities"] else "the newest of each space",
                    clearable=True,
                    size="xs",
                    maw=620,
                ),
                figure(ids.DENSITY, height=400),
                dmc.Text(DENSITY, size="sm", c="dimmed"),
                html.Div(id=f"{ids.DENSITY}-table"),
            ]
        ),
        "rates": html.Div(
            [
                figure(ids.RATES, height=400),
                dmc.Text(RATES, size="sm", c="dimmed"),
                html.Div(id=f"{ids.RATES}-table"),
            ]
        ),
    }


def register(app: Dash, connect: Connect) -> None:
    """One callback a tab; each draws only while its tab is open."""
    extremes = [
        Output(ids.EXTREMES, "figure"),
        Output(f"{ids.EXTREMES}-table", "children"),
        Output(ids.curvature("step"), "data"),
        Output(ids.curvature("layer"), "data"),
    ]
    suppression = [Output(ids.SUPPRESSION, "figure"), Output(f"{ids.SUPPRESSION}-table", "children")]
    rates = [Output(ids.RATES, "figure"), Output(f"{ids.RATES}-table", "children")]
    density = [
        Output(ids.DENSITY, "figure"),
        Output(f"{ids.DENSITY}-table", "children"),
        Output(ids.curvature("densities"), "data"),
    ]
    tabs = {
        "extremes": (extremes, _extremes),
        "suppression": (suppression, _suppression),
        "rates": (rates, _rates),
        "density": (density, _density),
    }
    for tab, (outputs, draw) in tabs.items():
        draw_tab(
            app,
            tab,
            outputs,
            pulse=ids.CURVATURE_PULSE,
            view=ids.CURVATURE_VIEW,
            draw=partial(draw, connect),
        )


def _extremes(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            found = _read(client, view)
    except LoraAlphaError as error:
        return empty(colours, str(error), height=520), no_update, no_update, no_update
    step, layer = _step(found, view), "" if view["layer"] == ALL_LAYERS else view["layer"]
    plot = extremes_figure(found.points, colours, x=view["x"], step=step, layer=layer)
    steps = [{"value": str(value), "label": _step_name(value)} for value in steps_of(found) or [0]]
    layers = [ALL_LAYERS, *layers_of(found)]
    reasons = _reasons(found, of_rates=False)
    return plot, [*reasons, behind("Table: extremes", _table(found.points))], steps, layers


def _suppression(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            found = _read(client, view)
    except LoraAlphaError as error:
        return empty(colours, str(error), height=440), no_update
    plot = suppression_figure(found.suppression, colours, step=_step(found, view))
    rows = [
        [
            curve.method,
            str(curve.rank),
            "–" if curve.step == 0 else number(curve.lr),
            _step_name(curve.step),
            number(_rounded(curve.crossing)),
            number(_rounded(curve.predicted)),
            "–" if curve.crossing is None else f"{curve.crossing / curve.predicted:.2f}",
            "–" if curve.slope is None else f"{curve.slope:.2f}",
            str(curve.in_features),
            curve.reason,
        ]
        for curve in found.suppression
    ]
    headings = ["method", "r", "η", "at", "equal at α", "√(3·in·r)", "ratio", "slope", "in", ""]
    return plot, [*_reasons(found, of_rates=False), table(headings, rows) if rows else ""]


def _rates(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            found = _read(client, view)
    except LoraAlphaError as error:
        return empty(colours, str(error), height=400), no_update
    slope = found.rate_exponent
    sentence = (
        "Too few enclosed optima for a slope."
        if slope is None
        else f"η* ∝ (1/λ_max)^{slope:.2f} over the points here; 1 would be η* ∝ 1/λ_max."
    )
    rows = [
        [
            rate.method,
            str(rate.rank),
            number(rate.alpha),
            number(rate.lambda_max),
            number(rate.lr),
            number(rate.lr * rate.lambda_max),
            rate.censored.replace("_", " "),
        ]
        for rate in found.rates
    ]
    headings = ["method", "r", "α", "λ_max at the start", "best η", "η·λ_max", "censored"]
    parts = [dmc.Text(sentence, fw=600), behind("Table: best η", table(headings, rows))] if rows else []
    return rates_figure(found, colours), [*_reasons(found, of_rates=True), *parts]


def _density(connect: Connect, view: Mapping[str, Any], theme_name: str) -> Any:
    colours = theme(theme_name)
    try:
        with connect() as client:
            found = _density_probes(client, view)
    except LoraAlphaError as error:
        return empty(colours, str(error), height=400), no_update, no_update
    chosen = [probe for probe in found if probe.id in view["densities"]] or _newest_pair(found)
    data = [{"value": probe.id, "label": f"{density_name(probe)} ({probe.id[:4]})"} for probe in found]
    rows = [_density_row(probe) for probe in chosen]
    headings = ["probe", "point", "coordinates", "mean λ", "second moment", "smallest", "largest"]
    return density_figure(chosen, colours), behind("Table: moments", table(headings, rows)), data


def _density_probes(client: Client, view: Mapping[str, Any]) -> list[Probe]:
    fresh = view["sweep"] == "fresh"
    where: dict[str, Any] = {"fresh": True} if fresh else {"sweep": view["sweep"]}
    page = client.probes(**where, kind="density", state="finished", limit=100).items
    return [probe for probe in page if density_grid(probe)]


def _newest_pair(found: Sequence[Probe]) -> list[Probe]:
    """The newest of each space, at the same point if there is one."""
    if not found:
        return []
    first = found[0]
    others = [probe for probe in found if probe.space != first.space]
    same = [probe for probe in others if (probe.run_id, probe.step) == (first.run_id, first.step)]
    return [first, *(same or others)[:1]]


def _density_row(probe: Probe) -> list[Any]:
    result = probe.result or {}
    moments = {row["index"]: row for row in result.get("rows", []) if row["kind"] == "moment"}
    ordered = [moments[index] for index in sorted(moments)]
    grid = density_grid(probe)
    shown = [
        f"{number(row['value'])} ± {number(row['error'])}" if row["error"] else number(row["value"])
        for row in ordered[:2]
    ]
    ends = [number(grid[0][0]), number(grid[0][-1])] if grid else ["–", "–"]
    return [
        probe.id,
        density_name(probe),
        f"{result.get('num_parameters', 0):,}",
        *[*shown, "–", "–"][:2],
        *ends,
    ]


def _read(client: Client, view: Mapping[str, Any]) -> Curvature:
    return client.curvature(None if view["sweep"] == "fresh" else view["sweep"])


def _step(found: Curvature, view: Mapping[str, Any]) -> int:
    known = steps_of(found)
    wanted = int(view["step"]) if str(view["step"]).isdigit() else 0
    return wanted if wanted in known or not known else known[0]


def _step_name(step: int) -> str:
    return "start (B = 0)" if step == 0 else f"step {step}"


def _reasons(found: Curvature, *, of_rates: bool) -> list[Component]:
    """What is missing for this tab: of the best η, or of the probes."""
    shown = [reason for reason in found.reasons if ("best η" in reason) == of_rates]
    return [dmc.Text(f"{reason[:1].upper()}{reason[1:]}.", size="sm", c="dimmed") for reason in shown]


def _table(points: Sequence[Sharpness]) -> Component:
    rows = [
        [
            point.space,
            "–" if point.rank is None else str(point.rank),
            number(point.alpha),
            number(point.scale),
            number(point.lr),
            str(point.seed),
            str(point.step),
            point.layer or ALL_LAYERS,
            _with_error(point.lambda_max, point.lambda_max_error),
            "–" if point.lambda_min is None else _with_error(point.lambda_min, point.lambda_min_error),
            point.probe_id,
        ]
        for point in points
    ]
    headings = ["space", "r", "α", "s", "η", "seed", "step", "layer", "λ_max", "λ_min", "probe"]
    return table(headings, rows)


def _with_error(value: float, error: float | None) -> str:
    return number(value) if error is None else f"{number(value)} (residual {number(error)})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
