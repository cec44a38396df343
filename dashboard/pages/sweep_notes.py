"""Tab of a sweep for what people add to it: name, notes, tags, saved views; and its deletion."""

from __future__ import annotations

import asyncio
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import card, note
from dashboard.connection import Connect
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.sweeps import Sweep

REALLY = "Delete this sweep with all its runs, curves and probes? This cannot be undone."


def notes_panel(sweep: Sweep) -> Component:
    """Fields with what is stored, and a button for each thing to do."""
    about = [
        dmc.TextInput(id=ids.NOTES_NAME, label="Name", value=sweep.name),
        dmc.TagsInput(id=ids.NOTES_TAGS, label="Tags", value=sweep.tags, clearable=True),
        dmc.Textarea(
            id=ids.NOTES_TEXT, label="Notes", value=sweep.notes, autosize=True, minRows=5, maxRows=24
        ),
        dmc.Group([dmc.Button("Save", id=ids.NOTES_SAVE), html.Div(id=ids.NOTES_RESULT)], mt="sm"),
    ]
    view = [
        dmc.Text("The address of the page holds everything you see: tab, filters, axes.", size="sm", mb="xs"),
        dmc.Group(
            [
                dmc.TextInput(id=ids.VIEW_NAME, placeholder="Name of the view", w=280),
                dmc.Button("Save view", id=ids.VIEW_SAVE, variant="light"),
                html.Div(id=ids.VIEW_RESULT),
            ]
        ),
    ]
    delete = [
        dcc.ConfirmDialogProvider(
            dmc.Button("Delete sweep", color="red", variant="light"), id=ids.DELETE_SWEEP, message=REALLY
        ),
        html.Div(id=ids.DELETE_RESULT, style={"marginTop": 8}),
    ]
    return html.Div([card(*about), card(*view, title="Save this view"), card(*delete, title="Delete")])


def register(app: Dash, connect: Connect) -> None:
    """Callbacks of the three buttons."""

    @app.callback(
        Output(ids.NOTES_RESULT, "children"),
        Input(ids.NOTES_SAVE, "n_clicks"),
        State(ids.NOTES_NAME, "value"),
        State(ids.NOTES_TAGS, "value"),
        State(ids.NOTES_TEXT, "value"),
        State(ids.SWEEP_ID, "data"),
        prevent_initial_call=True,
    )
    async def save(clicks: int | None, name: str, tags: list[str], text: str, sweep_id: str) -> Any:
        return await asyncio.to_thread(_save, connect, sweep_id, name, tags, text) if clicks else no_update

    @app.callback(
        Output(ids.VIEW_RESULT, "children"),
        Input(ids.VIEW_SAVE, "n_clicks"),
        State(ids.VIEW_NAME, "value"),
        State(ids.URL, "pathname"),
        State(ids.URL, "search"),
        prevent_initial_call=True,
    )
    async def save_view(clicks: int | None, name: str | None, path: str, search: str | None) -> Any:
        if not clicks:
            return no_update
        return await asyncio.to_thread(_save_view, connect, name or "", path + (search or ""))

    @app.callback(
        Output(ids.URL, "href", allow_duplicate=True),
        Output(ids.DELETE_RESULT, "children"),
        Input(ids.DELETE_SWEEP, "submit_n_clicks"),
        State(ids.SWEEP_ID, "data"),
        prevent_initial_call=True,
    )
    async def delete(confirmed: int | None, sweep_id: str) -> Any:
        return await asyncio.to_thread(_delete, connect, sweep_id) if confirmed else (no_update, no_update)


def _save(connect: Connect, sweep_id: str, name: str, tags: list[str], text: str) -> Component:
    try:
        with connect() as client:
            client.patch_sweep(sweep_id, name=name, tags=tags or [], notes=text or "")
    except LoraAlphaError as error:
        return note("Not saved", str(error), colour="red")
    return dmc.Text("Saved.", c="teal", size="sm")


def _save_view(connect: Connect, name: str, address: str) -> Component:
    # The tab that the button is on is nobody's view.
    address = address.replace("tab=notes&", "").replace("?tab=notes", "").replace("&tab=notes", "")
    try:
        with connect() as client:
            view = client.save_view(name.strip(), address)
    except LoraAlphaError as error:
        return note("Not saved", str(error), colour="red")
    return dcc.Link(
        f"{view.name} is among the saved views on the first page.", href="/", className="row-link"
    )


def _delete(connect: Connect, sweep_id: str) -> Any:
    try:
        with connect() as client:
            client.delete_sweep(sweep_id)
    except LoraAlphaError as error:
        return no_update, note("Not deleted", str(error), colour="red")
    return "/", no_update
