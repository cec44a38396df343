"""Tab of a sweep with a link for each CSV; the browser streams it from the API."""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from dashboard.components.parts import card, table
from dashboard.controls import Subject
from dashboard.tab import Row, Tab

EXPORTS = (
    ("runs", "One row a run: configuration, final and best loss, duration, error."),
    ("history", "One row a point: every metric of every run, never sampled."),
    ("cells", "Seeds taken together: n, mean, std, 95 % interval, diverged, failed."),
    ("optima", "Best α (and η) of every rank, with interval, basin and censoring."),
    ("law", "Fitted exponents and coefficients with intervals and counts."),
    ("horizon", "The law read at earlier steps: p and C with intervals against the step."),
    ("probes", "Hessian probes: eigenvalues, densities, traces."),
    ("rules", "What common rules for α cost at every rank, measured and estimated."),
    ("advice", "The α to train with at every swept rank and learning rate, and what it rests on."),
    ("verdicts", "α against η at every rank: difference with intervals, verdict, what keeps it open."),
    ("deciding", "One row a run that would decide an open verdict."),
)


def panel(subject: Subject, _: Row) -> Component:
    """One row a file."""
    assert subject.sweep is not None
    rows = [
        [
            html.A(
                dmc.Button(f"{kind}.csv", variant="light", size="xs"),
                href=f"/download/{kind}.csv?sweep={subject.sweep.id}",
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


TAB = Tab(page="sweep", name="export", title="Export", panel=panel)
