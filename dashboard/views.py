"""Callbacks that pages have alike: a view kept in the address, a plot drawn while its tab is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, no_update

from dashboard import ids
from dashboard.address import write_view


def remember_view(app: Dash, kind: str, store: str, defaults: Mapping[str, Any]) -> None:
    """Write what the controls ``{"type": kind, "name": …}`` hold into the store and the page's address."""

    @app.callback(
        Output(store, "data"),
        Output(ids.URL, "search", allow_duplicate=True),
        Input({"type": kind, "name": ALL}, "value"),
        State({"type": kind, "name": ALL}, "id"),
        State(store, "data"),
        prevent_initial_call=True,
    )
    async def remember(values: list[Any], names: list[dict[str, str]], view: dict[str, Any]) -> Any:
        chosen = {item["name"]: value for item, value in zip(names, values, strict=True)}
        new = {**view, **{name: value for name, value in chosen.items() if value is not None}}
        return (new, write_view(new, defaults)) if new != view else (no_update, no_update)


def draw_tab(
    app: Dash,
    tab: str,
    outputs: Sequence[Output],
    *,
    pulse: str,
    view: str,
    draw: Callable[[Mapping[str, Any], str], Any],
) -> None:
    """Fill ``outputs`` with ``draw(view, theme)`` on every pulse, view and theme, while ``tab`` is open."""

    @app.callback(*outputs, Input(pulse, "data"), Input(view, "data"), Input(ids.THEME, "data"))
    async def redraw(_: str, view: dict[str, Any], theme_name: str) -> Any:
        if view["tab"] != tab:
            return (no_update,) * len(outputs)
        return await asyncio.to_thread(draw, view, theme_name)
