"""A button that does one thing to the sweep of the view, once, and then says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from dash import Dash, Input, Output, State, no_update

from dashboard import ids
from lora_alpha.wire.client import Client


def act_once(app: Dash, client: Client, button: Any, act: Callable[[Client, Mapping[str, Any]], str]) -> None:
    """A click on ``button`` calls ``act`` with client and view; its sentence replaces the button's text.

    Args:
        app: Where the callback is registered.
        client: For ``act``.
        button: An id, or a pattern with ``MATCH`` for one of several alike.
        act: Returns one sentence, for errors too.
    """

    @app.callback(
        Output(button, "children"),
        Output(button, "disabled"),
        Input(button, "n_clicks"),
        State(ids.view("sweep"), "data"),
        prevent_initial_call=True,
    )
    async def clicked(clicks: int | None, view: dict[str, Any]) -> Any:
        if not clicks:
            return no_update, no_update
        return await asyncio.to_thread(act, client, view), True
