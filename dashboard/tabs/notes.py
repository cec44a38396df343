"""Tab of a sweep for what people add to it: name, notes, tags, saved views; and its deletion."""

from __future__ import annotations

import asyncio
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import card, note
from dashboard.controls import Subject
from dashboard.tab import Row, Tab
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client

NAME, TAGS, TEXT = "notes-name", "notes-tags", "notes-text"
SAVE, SAVED = "notes-save", "notes-result"
VIEW_NAME, VIEW_SAVE, VIEW_SAVED = "view-name", "view-save", "view-result"
DELETE, DELETED = "delete-sweep", "delete-result"

REALLY = "Delete this sweep with all its runs, curves and probes? This cannot be undone."


def panel(subject: Subject, _: Row) -> Component:
    """Fields with what is stored, and a button for each thing to do."""
    sweep = subject.sweep
    assert sweep is not None
    about = [
        dmc.TextInput(id=NAME, label="Name", value=sweep.name),
        dmc.TagsInput(id=TAGS, label="Tags", value=sweep.tags, clearable=True),
        dmc.Textarea(id=TEXT, label="Notes", value=sweep.notes, autosize=True, minRows=5, maxRows=24),
        dmc.Group([dmc.Button("Save", id=SAVE), html.Div(id=SAVED)], mt="sm"),
    ]
    view = [
        dmc.Text("The address of the page holds everything you see: tab, filters, axes.", size="sm", mb="xs"),
        dmc.Group(
            [
                dmc.TextInput(id=VIEW_NAME, placeholder="Name of the view", w=280),
                dmc.Button("Save view", id=VIEW_SAVE, variant="light"),
                html.Div(id=VIEW_SAVED),
            ]
        ),
    ]
    delete = [
        dcc.ConfirmDialogProvider(
            dmc.Button("Delete sweep", color="red", variant="light"), id=DELETE, message=REALLY
        ),
        html.Div(id=DELETED, style={"marginTop": 8}),
    ]
    return html.Div([card(*about), card(*view, title="Save this view"), card(*delete, title="Delete")])


def register(app: Dash, client: Client) -> None:
    """Callbacks of the three buttons."""

    @app.callback(
        Output(SAVED, "children"),
        Input(SAVE, "n_clicks"),
        State(NAME, "value"),
        State(TAGS, "value"),
        State(TEXT, "value"),
        State(ids.view("sweep"), "data"),
        prevent_initial_call=True,
    )
    async def save(clicks: int | None, name: str, tags: list[str], text: str, view: dict[str, Any]) -> Any:
        return (
            await asyncio.to_thread(_save, client, view["sweep"], name, tags, text) if clicks else no_update
        )

    @app.callback(
        Output(VIEW_SAVED, "children"),
        Input(VIEW_SAVE, "n_clicks"),
        State(VIEW_NAME, "value"),
        State(ids.URL, "pathname"),
        State(ids.URL, "search"),
        prevent_initial_call=True,
    )
    async def save_view(clicks: int | None, name: str | None, path: str, search: str | None) -> Any:
        if not clicks:
            return no_update
        return await asyncio.to_thread(_save_view, client, name or "", path + (search or ""))

    @app.callback(
        Output(ids.URL, "href", allow_duplicate=True),
        Output(DELETED, "children"),
        Input(DELETE, "submit_n_clicks"),
        State(ids.view("sweep"), "data"),
        prevent_initial_call=True,
    )
    async def delete(confirmed: int | None, view: dict[str, Any]) -> Any:
        return (
            await asyncio.to_thread(_delete, client, view["sweep"]) if confirmed else (no_update, no_update)
        )


def _save(client: Client, sweep_id: str, name: str, tags: list[str], text: str) -> Component:
    try:
        client.patch_sweep(sweep_id, name=name, tags=tags or [], notes=text or "")
    except LoraAlphaError as error:
        return note("Not saved", str(error), colour="red")
    return dmc.Text("Saved.", c="teal", size="sm")


def _save_view(client: Client, name: str, address: str) -> Component:
    # The tab that the button is on is nobody's view.
    address = address.replace("tab=notes&", "").replace("?tab=notes", "").replace("&tab=notes", "")
    try:
        view = client.save_view(name.strip(), address)
    except LoraAlphaError as error:
        return note("Not saved", str(error), colour="red")
    return dcc.Link(
        f"{view.name} is among the saved views on the first page.", href="/", className="row-link"
    )


def _delete(client: Client, sweep_id: str) -> Any:
    try:
        client.delete_sweep(sweep_id)
    except LoraAlphaError as error:
        return no_update, note("Not deleted", str(error), colour="red")
    return "/", no_update


TAB = Tab(page="sweep", name="notes", title="Notes", panel=panel, register=register)
