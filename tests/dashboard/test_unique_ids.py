"""No page has two components of one id, whatever its tabs have been filled with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dashboard.app import route
from dashboard.components import probe_list
from dashboard.pages import curvature, dynamics, sweep
from dashboard.pages.shell import shell
from dashboard.pages.sweeps import sweep_table, view_list
from dashboard.pages.workers import worker_table
from dashboard.redraw import redraw
from dashboard.tabbed import TabbedPage
from lora_alpha.wire.client import Client

FILLED = {
    "/": lambda client: [sweep_table(client, "", "all"), view_list(client, None)],
    "/new": lambda _: [],
    "/workers": lambda client: [worker_table(client)],
    "/laws": lambda _: [],
    "/sweep/s1": lambda client: drawn(client, sweep.PAGE),
    "/dynamics": lambda client: drawn(client, dynamics.PAGE),
    "/curvature": lambda client: [*drawn(client, curvature.PAGE), probe_list.listing(client, "s1", None)[0]],
}


def drawn(client: Client, page: TabbedPage) -> list[Any]:
    layout = sweep.layout("s1", "", client) if page is sweep.PAGE else route(f"/{page.name}", "", client)
    (view,) = [part.data for part in layout._traverse() if getattr(part, "id", "") == f"{page.name}-view"]
    filled: list[Any] = []
    for tab in page.tabs:
        if tab.parts:
            filled += redraw(client, tab, page.read_by(tab, view), "1", "light", None)[1:]
    return filled


def ids_in(content: Any) -> Iterator[str]:
    if hasattr(content, "to_plotly_json"):
        content = content.to_plotly_json()["props"]
        if "id" in content:
            yield json.dumps(content["id"], sort_keys=True)
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple):
        for part in content:
            yield from ids_in(part)


@pytest.mark.parametrize("path", FILLED)
def test_every_id_is_on_a_page_once(path: str, client: Client) -> None:
    found = Counter(ids_in([shell(), route(path, "", client), *FILLED[path](client)]))
    assert len(found) >= 10
    assert [name for name, count in found.items() if count > 1] == []


def test_two_laws_at_the_edge_of_the_grid_have_a_button_each(client: Client) -> None:
    buttons = [name for name in ids_in(drawn(client, sweep.PAGE)) if '"extend"' in name]
    assert len(set(buttons)) == 2
