"""What a tab shows now: nothing is asked or replaced that is as before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import no_update

from dashboard.figures.style import Theme, empty, theme
from dashboard.tab import Plot, Tab, View, Words
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import Client


def redraw(
    client: Client,
    tab: Tab,
    read: View,
    pulse: str,
    theme_name: str | None,
    before: Mapping[str, Any] | None,
) -> tuple[Any, ...]:
    """What to keep as ``before`` of the next call, then one value a part: ``no_update`` where it stays.

    ``read`` is the part of the view that the tab depends on. A tab that could not be drawn, because the
    service did not answer, is tried again at the next chance.
    """
    assert tab.fetch is not None
    assert tab.draw is not None
    colours = theme(theme_name)
    asked = json.dumps([pulse, colours.name, read], sort_keys=True)
    before = before or {}
    if before.get("asked") == asked:
        return (no_update,) * (1 + len(tab.parts))
    try:
        data = tab.fetch(client, read)
        filled = tab.draw(data, read, colours) if data is not None else _blank(tab, colours, tab.empty)
        assert len(filled) == len(tab.parts), f"tab {tab.name} fills {len(filled)} of {len(tab.parts)} parts"
    except LoraAlphaError as error:
        asked, filled = "", _blank(tab, colours, str(error))
    parts, prints = only_changed(filled, before.get("prints", ()))
    return {"asked": asked, "prints": prints}, *parts


def _blank(tab: Tab, colours: Theme, text: str) -> list[Any]:
    """The first figure (where there is none, the first words) says ``text``; other figures are blank."""
    saying = next((part for kind in (Plot, Words) for part in tab.parts if isinstance(part, kind)), None)
    filled: list[Any] = []
    for part in tab.parts:
        if isinstance(part, Plot):
            filled.append(empty(colours, text if part is saying else "", height=part.height))
        elif isinstance(part, Words):
            filled.append(dmc.Text(text, c="dimmed") if part is saying else "")
        else:
            filled.append(no_update)
    return filled


def only_changed(parts: Sequence[Any], prints: Sequence[str]) -> tuple[list[Any], list[str]]:
    """The parts, ``no_update`` in place of those that are as before; and the fingerprints of all."""
    old = [*prints, *[""] * (len(parts) - len(prints))]
    new = [was if part is no_update else fingerprint(part) for part, was in zip(parts, old, strict=True)]
    changed = [no_update if now == was else part for part, now, was in zip(parts, new, old, strict=True)]
    return changed, new


def fingerprint(part: Any) -> str:
    """Equal for what would look the same."""
    text = json.dumps(part, default=lambda component: component.to_plotly_json())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
