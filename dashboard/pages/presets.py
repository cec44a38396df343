"""Ready-made sweeps: cards on the form's page, and what a preset says on the page of its sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, ctx, dcc, no_update
from dash.development.base_component import Component

from dashboard import ids
from dashboard.components.parts import note
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import PresetItem
from lora_alpha.wire.sweeps import Sweep

TAG = "preset:"
PAGES = {
    "dynamics": "/dynamics?sweep={}",
    "curvature": "/curvature?sweep={}",
    "equivalence": "/sweep/{}?tab=equivalence",
}


def preset_cards(presets: Sequence[PresetItem]) -> Component:
    """All presets, folded away until somebody looks for them."""
    item = dmc.AccordionItem(
        [
            dmc.AccordionControl("Ready-made sweeps: one click, one claim tested"),
            dmc.AccordionPanel(
                dmc.SimpleGrid([_card(preset) for preset in presets], cols={"base": 1, "sm": 2, "lg": 3})
            ),
        ],
        value="presets",
    )
    return dmc.Accordion(item, id=ids.PRESETS, variant="separated", mb="md")


def find_preset(client: Client, name: str) -> PresetItem | None:
    """The preset called ``name``, if there is one."""
    return next((item for item in client.presets().items if item.id == name), None)


def preset_note(client: Client, sweep: Sweep) -> list[Component]:
    """What the preset that made this sweep asks and expects, with the page that answers."""
    name = next((tag.removeprefix(TAG) for tag in sweep.tags if tag.startswith(TAG)), "")
    preset = find_preset(client, name) if name else None
    if preset is None:
        return []
    text: list[Any] = [dmc.Text(f"When it was measured here: {preset.expect}", size="sm")]
    if preset.page in PAGES:
        address = PAGES[preset.page].format(sweep.id)
        text.append(dcc.Link(f"The {preset.page} page shows it", href=address, className="row-link"))
    return [note(preset.question, text, colour="cyan")]


def register(app: Dash, client: Client) -> None:
    """The buttons of the cards."""

    @app.callback(
        Output(ids.URL, "href", allow_duplicate=True),
        Output(ids.PRESET_RESULT, "children"),
        Input({"type": "preset", "name": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    async def run(clicks: list[int | None]) -> Any:
        pressed = ctx.triggered_id
        if not any(clicks) or not isinstance(pressed, dict):
            return no_update, no_update
        return await asyncio.to_thread(_run, client, pressed["name"])


def _card(preset: PresetItem) -> Component:
    if preset.needs:
        # A new page: the form is already open on this one, and its address alone would change.
        action: Component = dcc.Link(
            dmc.Button("Fill the form", size="xs", variant="light"),
            href=f"/new?preset={preset.id}",
            refresh=True,
        )
    else:
        action = dmc.Button("Run", id=ids.preset(preset.id), size="xs", variant="light")
    missing = f"Needs your {' and '.join(preset.needs)}." if preset.needs else ""
    return dmc.Card(
        [
            dmc.Text(preset.title, fw=600),
            dmc.Text(preset.question, size="sm", mb=4),
            dmc.Text(preset.expect, size="xs", c="dimmed", lineClamp=5, mb="xs"),
            dmc.Group([action, dmc.Text(missing, size="xs", c="dimmed")], mt="auto", gap="xs"),
        ],
        withBorder=True,
        padding="sm",
    )


def _run(client: Client, name: str) -> Any:
    try:
        preset = find_preset(client, name)
        if preset is None:
            return no_update, note("Not submitted", f"there is no preset {name!r}", colour="red")
        sweep = client.create_sweep(preset.request)
    except LoraAlphaError as error:
        return no_update, note("Not submitted", str(error), colour="red")
    return f"/sweep/{sweep.id}", no_update
