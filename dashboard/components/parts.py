"""Pieces that several pages share: badges, tables, notes, figures with the table behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

STATE_COLOURS = {
    "queued": "gray",
    "running": "blue",
    "paused": "yellow",
    "stopping": "orange",
    "finished": "teal",
    "stopped": "gray",
    "cancelled": "gray",
    "failed": "red",
    "lost": "red",
    "idle": "teal",
    "busy": "blue",
    "draining": "orange",
    "gone": "gray",
}
CLEAR = "rgba(0,0,0,0)"
BLANK = {
    "data": [],
    "layout": {
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
    },
}
GRAPH_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}


def badge(state: str) -> Component:
    """A state as a coloured word."""
    return dmc.Badge(state, color=STATE_COLOURS.get(state, "gray"), variant="light", radius="sm")


def note(title: str, text: Any, *, colour: str = "yellow") -> Component:
    """A message that stays until its cause is gone."""
    return dmc.Alert(text, title=title, color=colour, variant="light", radius="md")


def notes(warnings: Sequence[str]) -> list[Component]:
    """Warnings, one below the other."""
    return [note("Mind", text) for text in warnings]


def table(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "", min_width: int = 480
) -> Component:
    """A compact table; numbers come as text."""
    head = dmc.TableThead(dmc.TableTr([dmc.TableTh(heading) for heading in headings]))
    body = dmc.TableTbody([dmc.TableTr([dmc.TableTd(cell) for cell in row]) for row in rows])
    parts: list[Component] = [head, body]
    if caption:
        parts.append(dmc.TableCaption(caption))
    return dmc.TableScrollContainer(
        dmc.Table(
            parts, striped="odd", highlightOnHover=True, verticalSpacing=5, fz="sm", className="numbers"
        ),
        minWidth=min_width,
    )


def figure(figure_id: str, *, height: int = 440) -> Component:
    """A plot; until its figure comes it is blank in either theme."""
    graph = dcc.Graph(
        id=figure_id,
        figure=BLANK,
        config=GRAPH_CONFIG,
        style={"height": f"{height}px"},
        responsive=True,
    )
    return html.Div(graph, className="plot")


def behind(label: str, content: Any) -> Component:
    """The table behind a plot, folded away."""
    return html.Details([html.Summary(label), content], className="behind")


def card(*children: Any, title: str = "") -> Component:
    """A framed part of a page."""
    head = [dmc.Title(title, order=4, mb="xs")] if title else []
    return dmc.Paper([*head, *children], withBorder=True, radius="md", p="md", mb="md")


def nothing_here(title: str, text: str, link: str, link_text: str) -> Component:
    """An empty state that says what to do next."""
    return dmc.Center(
        dmc.Stack(
            [
                dmc.Title(title, order=3),
                dmc.Text(text, c="dimmed", ta="center", maw=460),
                dcc.Link(dmc.Button(link_text), href=link),
            ],
            align="center",
            gap="sm",
        ),
        py=80,
    )


def select(name_id: Any, label: str, value: Any, data: Sequence[Any], **more: Any) -> Component:
    """A single choice."""
    return dmc.Select(
        id=name_id, label=label, value=value, data=list(data), allowDeselect=False, size="xs", w=150, **more
    )
