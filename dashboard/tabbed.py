"""Pages of tabs: a tab is a record, and one mechanism lays it out, remembers its view and redraws it.

What a tab reads of the page's view, what it asks the service for and what it draws are in its record. The
mechanism promises: the view is in the address; a tab is drawn only while it is open; what was drawn stays
while the tab is hidden; nothing is asked for where neither the data (the pulse) nor the tab's own part of the
view changed; and only those parts are replaced that came out different, so that focus, zoom and scroll stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.address import read_view, write_view
from dashboard.components.parts import card, note, select
from dashboard.controls import Control, Subject
from dashboard.redraw import fingerprint, only_changed, redraw
from dashboard.tab import Tab, View
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client

RETRY_MS = 3000  # until a service that did not answer is asked again


@dataclass(frozen=True)
class Watched:
    """What a look at the service gave: tabs redraw when ``pulse`` changes; ``head`` is shown above them."""

    pulse: str
    interval_ms: int
    head: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class TabbedPage:
    """A page of tabs about one sweep.

    Args:
        name: Of its components.
        tabs: In their order; the first is the one that opens.
        watch: (client, sweep) → what has changed, asked again and again.
        heads: How many parts the page's head has.
        shared: Values of the address that every tab reads and no tab has a control for.
        subject: (client, sweep) → subject, on a page where the sweep is chosen.
        above: Subject → what stands between head and tabs.
    """

    name: str
    tabs: tuple[Tab, ...]
    watch: Callable[[Client, str], Watched]
    heads: int = 1
    shared: Mapping[str, Any] = field(default_factory=dict)
    subject: Callable[[Client, str], Subject] | None = None
    above: Callable[[Subject], list[Component]] = lambda _: []

    def __post_init__(self) -> None:
        names = ["tab", "sweep", *(control.name for control in self.controls)]
        twice = sorted({name for name in names if names.count(name) > 1})
        assert not twice, f"two controls of page {self.name} share a name in its address: {twice}"

    @property
    def in_bar(self) -> list[Tab]:
        """The tabs that can be opened; others stand beneath one of them."""
        return [tab for tab in self.tabs if not tab.beneath]

    @property
    def controls(self) -> list[Control]:
        """Controls of all tabs."""
        return [control for tab in self.tabs for control in tab.controls]

    def defaults(self, subject: Subject) -> dict[str, Any]:
        """The view of an address that says nothing."""
        own = {control.name: control.default_at(subject) for control in self.controls}
        return {"tab": self.tabs[0].name, **self.shared, **own}

    def read_by(self, tab: Tab, view: View) -> dict[str, Any]:
        """The part of the view that ``tab`` depends on."""
        names = ["sweep", *self.shared, *(control.name for control in tab.controls), *tab.reads]
        return {name: view[name] for name in names}


def open_page(
    page: TabbedPage, subject: Subject, sweep: str, search: str | None
) -> tuple[list[Component], list[Component]]:
    """What the page keeps (stores and clock), and its body: head and tabs as the address says."""
    defaults = page.defaults(subject)
    former = {control.name: control.was for control in page.controls if control.was}
    view = {**read_view(search, defaults, former), "sweep": sweep}
    view |= {c.name: c.read(view[c.name], defaults[c.name]) for c in page.controls}
    if view["tab"] not in [tab.name for tab in page.in_bar]:
        view["tab"] = defaults["tab"]
    watched = page.watch(subject.client, sweep)
    kept = [
        dcc.Store(id=ids.view(page.name), data=view),
        dcc.Store(id=ids.defaults(page.name), data=defaults),
        dcc.Store(id=ids.pulse(page.name), data=watched.pulse),
        dcc.Interval(id=ids.tick(page.name), interval=watched.interval_ms),
    ]
    return kept, _body(page, subject, view, watched)


def chooser(page: TabbedPage, title: str, label: str, sweep: str, options: Sequence[Any]) -> Component:
    """The head line of a page where the sweep is chosen."""
    return dmc.Group(
        [
            dmc.Title(title, order=2),
            select(ids.sweep_of(page.name), label, sweep, options, searchable=True, miw=380),
        ],
        justify="space-between",
        align="flex-end",
        mb="md",
    )


def register_page(app: Dash, client: Client, page: TabbedPage) -> None:
    """Callbacks of the address, the clock, the chooser if there is one, and every tab."""
    _register_view(app, page)
    _register_clock(app, client, page)
    if page.subject is not None:
        _register_chooser(app, client, page)
    for tab in page.tabs:
        if tab.parts:
            _register_drawing(app, client, page, tab)
        if tab.register is not None:
            tab.register(app, client)


def _body(page: TabbedPage, subject: Subject, view: View, watched: Watched) -> list[Component]:
    heads = [html.Div(content, id=ids.head(page.name, place)) for place, content in enumerate(watched.head)]
    bar = dmc.TabsList([dmc.TabsTab(tab.title, value=tab.name) for tab in page.in_bar], mb="md")
    panels = [
        dmc.TabsPanel(
            [
                part
                for tab in (shown, *(other for other in page.tabs if other.beneath == shown.name))
                for part in (dcc.Store(id=ids.drawn(page.name, tab.name)), _panel(tab, subject, view))
            ],
            value=shown.name,
        )
        for shown in page.in_bar
    ]
    tabs = dmc.Tabs([bar, *panels], id=ids.control(page.name, "tab"), value=view["tab"], keepMounted=True)
    prints = dcc.Store(id=ids.drawn(page.name, "head"), data=[fingerprint(part) for part in watched.head])
    return [*heads, *page.above(subject), prints, tabs]


def _panel(tab: Tab, subject: Subject, view: View) -> Component:
    known = {control.name: control for control in tab.controls}

    def row(*names: str) -> Component:
        shown = [
            known[name].show(ids.control(tab.page, name), view[name], subject) for name in names or known
        ]
        return html.Div(shown, className="controls")

    if tab.panel is not None:
        return tab.panel(subject, row)
    return card(*([row()] if known else []), *(component for part in tab.parts for component in part.place()))


def _register_view(app: Dash, page: TabbedPage) -> None:
    every = ids.control(page.name, ALL)

    @app.callback(
        Output(ids.view(page.name), "data"),
        Output(ids.URL, "search", allow_duplicate=True),
        Input(every, "value"),
        State(every, "id"),
        State(ids.view(page.name), "data"),
        State(ids.defaults(page.name), "data"),
        prevent_initial_call=True,
    )
    async def remember(
        values: list[Any], names: list[dict[str, str]], view: dict[str, Any], defaults: dict[str, Any]
    ) -> Any:
        chosen = {item["name"]: value for item, value in zip(names, values, strict=True)}
        texts = {name: value if isinstance(value, list) else str(value) for name, value in chosen.items()}
        new = {**view, **{name: text for name, text in texts.items() if chosen[name] is not None}}
        return (new, write_view(new, defaults)) if new != view else (no_update, no_update)


def _register_clock(app: Dash, client: Client, page: TabbedPage) -> None:
    @app.callback(
        Output(ids.pulse(page.name), "data"),
        Output(ids.tick(page.name), "interval"),
        Output(ids.drawn(page.name, "head"), "data"),
        *[Output(ids.head(page.name, place), "children") for place in range(page.heads)],
        Input(ids.tick(page.name), "n_intervals"),
        State(ids.view(page.name), "data"),
        State(ids.pulse(page.name), "data"),
        State(ids.drawn(page.name, "head"), "data"),
        prevent_initial_call=True,
    )
    async def beat(_: int, view: dict[str, Any], pulse: str, prints: list[str]) -> Any:
        return await asyncio.to_thread(look, client, page, view["sweep"], pulse, prints)


def look(client: Client, page: TabbedPage, sweep: str, pulse: str, prints: Sequence[str]) -> tuple[Any, ...]:
    """One beat: pulse, next interval, fingerprints of the head, and its parts where they changed."""
    try:
        seen = page.watch(client, sweep)
    except LoraAlphaError as error:
        text = f"{error}. This page tries again by itself."
        alert = note("The service does not answer", text, colour="red")
        seen = Watched(pulse, RETRY_MS, (alert, *[""] * (page.heads - 1)))
    parts, prints = only_changed(seen.head, prints)
    return (no_update if seen.pulse == pulse else seen.pulse), seen.interval_ms, prints, *parts


def _register_chooser(app: Dash, client: Client, page: TabbedPage) -> None:
    @app.callback(
        Output(ids.body(page.name), "children"),
        Output(ids.view(page.name), "data", allow_duplicate=True),
        Output(ids.defaults(page.name), "data"),
        Output(ids.pulse(page.name), "data", allow_duplicate=True),
        Output(ids.tick(page.name), "interval", allow_duplicate=True),
        Output(ids.URL, "search", allow_duplicate=True),
        Input(ids.sweep_of(page.name), "value"),
        State(ids.view(page.name), "data"),
        prevent_initial_call=True,
    )
    async def change_sweep(sweep: str, view: dict[str, Any]) -> Any:
        if not sweep or sweep == view["sweep"]:
            return (no_update,) * 6
        return await asyncio.to_thread(_change_sweep, client, page, sweep, view)


def _change_sweep(client: Client, page: TabbedPage, sweep: str, view: View) -> tuple[Any, ...]:
    """The page about another sweep: what belongs to the old one's grid goes, how it is looked at stays."""
    assert page.subject is not None
    try:
        subject = page.subject(client, sweep)
        defaults = page.defaults(subject)
        gone = {"sweep", *(control.name for control in page.controls if control.of_sweep)}
        new = {
            **defaults,
            **{name: value for name, value in view.items() if name not in gone},
            "sweep": sweep,
        }
        watched = page.watch(client, sweep)
        body = _body(page, subject, new, watched)
    except LoraAlphaError as error:
        problem = note("This sweep cannot be shown", str(error), colour="red")
        return [problem], *(no_update,) * 5
    return body, new, defaults, watched.pulse, watched.interval_ms, write_view(new, defaults)


def _register_drawing(app: Dash, client: Client, page: TabbedPage, tab: Tab) -> None:
    drawn = ids.drawn(page.name, tab.name)

    @app.callback(
        Output(drawn, "data"),
        *[Output(part.id, part.property) for part in tab.parts],
        Input(ids.pulse(page.name), "data"),
        Input(ids.view(page.name), "data"),
        Input(ids.THEME, "data"),
        State(drawn, "data"),
    )
    async def fill(pulse: str, view: dict[str, Any], theme_name: str | None, before: Any) -> Any:
        if view["tab"] != (tab.beneath or tab.name):
            return (no_update,) * (1 + len(tab.parts))
        return await asyncio.to_thread(
            redraw, client, tab, page.read_by(tab, view), pulse, theme_name, before
        )
