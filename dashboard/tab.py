"""A tab as a record: its controls, the parts it fills, what it asks the service for, what it draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html
from dash.development.base_component import Component

from dashboard.components.parts import behind, figure
from dashboard.controls import Control, Subject
from dashboard.figures.style import Theme
from lora_alpha.wire.client import Client

View = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """One property of a component that a tab fills; the component stands elsewhere in the tab."""

    id: Any
    property: str

    def place(self) -> list[Component]:
        """What is shown until it is filled."""
        return []


@dataclass(frozen=True)
class Words(Part):
    """Text and tables; ``folded`` is the line under which they are folded away."""

    property: str = "children"
    folded: str = ""

    def place(self) -> list[Component]:
        """The empty place."""
        content = html.Div(id=self.id)
        return [behind(self.folded, content) if self.folded else content]


@dataclass(frozen=True)
class Plot(Part):
    """A figure, with the words above and below it."""

    property: str = "figure"
    height: int = 440
    title: str = ""
    about: str = ""

    def place(self) -> list[Component]:
        """Blank in either theme, with its words."""
        above = [dmc.Title(self.title, order=4, mt="md")] if self.title else []
        below = [dmc.Text(self.about, size="sm", c="dimmed")] if self.about else []
        return [*above, figure(self.id, height=self.height), *below]


Row = Callable[..., Component]


@dataclass(frozen=True, kw_only=True)
class Tab:
    """One tab of a page.

    Args:
        page: Name of the page it belongs to.
        name: In the page's address.
        title: As people read it.
        beneath: The tab of the page under which it stands, open with that one and drawn by itself, so that
            what is slow to compute holds up nothing above it; "": in the bar, with a panel of its own.
        controls: What can be chosen in it, with defaults.
        reads: Controls of other tabs of the page that it follows, too.
        parts: What ``draw`` fills, in its order.
        fetch: (client, view) → what is drawn; None where nothing was measured yet. Only the view's values
            that the tab reads are there, and ``sweep``. A tab without parts needs neither this nor ``draw``.
        draw: (what was fetched, view, theme) → one value a part.
        empty: What is said where nothing was measured yet.
        panel: (subject, row) → the tab's layout; ``row(*names)`` are those controls side by side. The plain
            one is all controls, then all parts, in one card.
        register: Adds callbacks of the tab's own buttons.
    """

    page: str
    name: str
    title: str
    beneath: str = ""
    controls: tuple[Control, ...] = ()
    reads: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    fetch: Callable[[Client, View], Any] | None = None
    draw: Callable[[Any, View, Theme], Sequence[Any]] | None = None
    empty: str = ""
    panel: Callable[[Subject, Row], Component] | None = None
    register: Callable[[Dash, Client], None] | None = None
