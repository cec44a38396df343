"""What the mechanism of tabs promises, on every tab of every page."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import dash_mantine_components as dmc
import pytest
from dash import Dash, no_update

from dashboard.controls import Subject, choice, switch
from dashboard.pages import curvature, dynamics, sweep
from dashboard.redraw import redraw
from dashboard.tab import Plot, Tab, Words
from dashboard.tabbed import TabbedPage, Watched, look, open_page, register_page
from dashboard.tabs import TABS
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep
from tests.dashboard.service import SWEEP, FakeService

PAGES = {page.name: page for page in (sweep.PAGE, dynamics.PAGE, curvature.PAGE)}
DRAWN = [tab for tab in TABS if tab.parts]
ENTRY = {tab.name: tab for tab in TABS}


def view_of(page: TabbedPage, client: Client, search: str = "") -> dict[str, Any]:
    subject = Subject(client, Sweep.model_validate(SWEEP))
    (store, *_), _ = open_page(page, subject, "s1", search)
    view: dict[str, Any] = store.data
    return view


def draw(
    client: Client, tab: Tab, before: Any = None, *, pulse: str = "1", **changes: Any
) -> tuple[Any, ...]:
    page = PAGES[tab.page]
    view = {**view_of(page, client), "tab": tab.name, **changes}
    return redraw(client, tab, page.read_by(tab, view), pulse, "light", before)


def test_every_tab_belongs_to_a_page_that_shows_it() -> None:
    assert {tab.name for page in PAGES.values() for tab in page.tabs} == set(ENTRY)
    assert len(ENTRY) == len(TABS)


def test_a_tab_beneath_another_is_open_with_it_and_not_in_the_bar(client: Client) -> None:
    subject = Subject(client, Sweep.model_validate(SWEEP))
    (store, *_), body = open_page(sweep.PAGE, subject, "s1", "?tab=horizon")
    assert store.data["tab"] == sweep.PAGE.tabs[0].name  # it cannot be opened by itself
    tabs = body[-1]
    shown = [item.value for item in tabs.children[0].children]
    assert shown == [tab.name for tab in TABS if tab.page == "sweep" and not tab.beneath]
    (panel,) = [panel for panel in tabs.children[1:] if panel.value == "law"]
    ids = [getattr(part, "id", "") for part in panel._traverse()]
    assert ids.index("law-figure") < ids.index("horizon-figure")
    assert {tab.beneath for tab in TABS if tab.page == "sweep"} <= {"", *shown}


@pytest.mark.parametrize(("opened", "drawn"), [("law", True), ("map", False)])
def test_a_tab_beneath_another_is_drawn_while_that_one_is_open(
    opened: str, drawn: bool, client: Client, service: FakeService
) -> None:
    app = Dash(__name__)
    register_page(app, client, sweep.PAGE)
    (fill,) = [entry["callback"] for name, entry in app.callback_map.items() if "horizon-figure" in name]
    view = {**view_of(sweep.PAGE, client), "tab": opened}
    service.counted()
    asyncio.run(inspect.unwrap(fill)("1", view, "light", None))
    assert service.counted() == ({"/sweeps/s1/horizon": 1} if drawn else {})


@pytest.mark.parametrize("tab", DRAWN, ids=lambda tab: tab.name)
def test_a_tab_fills_every_part_of_itself(tab: Tab, client: Client) -> None:
    kept, *parts = draw(client, tab)
    assert len(parts) == len(tab.parts)
    assert kept["asked"]


@pytest.mark.parametrize("tab", DRAWN, ids=lambda tab: tab.name)
def test_a_redraw_asks_for_curves_once_at_most(tab: Tab, client: Client, service: FakeService) -> None:
    page = PAGES[tab.page]
    view = {**view_of(page, client), "tab": tab.name}
    service.counted()
    redraw(client, tab, page.read_by(tab, view), "1", "light", None)
    counts = service.counted()
    assert counts["/curves"] == (tab.name in {"convergence", "steps", "routes", "layers", "schedules"})
    assert sum(counts.values()) <= 4


def test_layers_come_by_the_beginning_of_their_names(client: Client, service: FakeService) -> None:
    _, figure, _ = draw(client, ENTRY["layers"], strip_metric="drift_ratio")
    (request,) = [request for request in service.requests if "metrics" in request.url.params]
    assert request.url.params["metrics"] == "drift_ratio/*"
    assert figure["data"][0]["y"] == ["0", "1"]


@pytest.mark.parametrize("tab", DRAWN, ids=lambda tab: tab.name)
def test_nothing_is_asked_where_neither_data_nor_view_changed(
    tab: Tab, client: Client, service: FakeService
) -> None:
    page = PAGES[tab.page]
    view = {**view_of(page, client), "tab": tab.name}
    before, *_ = redraw(client, tab, page.read_by(tab, view), "1", "light", None)
    others = {control.name for control in page.controls} - set(page.read_by(tab, view))
    elsewhere = {**view, **dict.fromkeys(others, "something else")}
    service.counted()
    assert set(redraw(client, tab, page.read_by(tab, elsewhere), "1", None, before)) == {no_update}
    assert not service.counted()


@pytest.mark.parametrize("tab", DRAWN, ids=lambda tab: tab.name)
def test_new_data_replace_only_what_came_out_different(
    tab: Tab, client: Client, service: FakeService
) -> None:
    before, *_ = draw(client, tab)
    service.counted()
    after, *parts = draw(client, tab, before, pulse="2")
    assert service.counted()
    assert set(map(id, parts)) == {id(no_update)}
    assert after["prints"] == before["prints"]


def test_a_changed_figure_is_replaced_and_the_words_beside_it_stay(
    client: Client, service: FakeService
) -> None:
    tab = ENTRY["map"]
    before, *_ = draw(client, tab)
    service.answers["/sweeps/s1"] = {**SWEEP, "metric_label": "another loss"}
    _, tiles, slices, cells = draw(client, tab, before, pulse="2")
    assert tiles["data"]
    assert slices["layout"]["yaxis"]["title"]["text"] == "another loss"
    assert cells is no_update


@pytest.mark.parametrize("tab", DRAWN, ids=lambda tab: tab.name)
def test_a_service_that_is_away_is_said_and_asked_again(
    tab: Tab, client: Client, service: FakeService
) -> None:
    page = PAGES[tab.page]
    view = {**view_of(page, client), "tab": tab.name}
    service.gone = True
    failed, *parts = redraw(client, tab, page.read_by(tab, view), "1", "light", None)
    if any(isinstance(part, Plot | Words) for part in tab.parts):
        assert "cannot be reached" in str(parts)
    service.gone = False
    service.counted()
    redraw(client, tab, page.read_by(tab, view), "1", "light", failed)
    assert service.counted()


@pytest.mark.parametrize("tab", [tab for tab in DRAWN if tab.empty], ids=lambda tab: tab.name)
def test_what_was_not_measured_is_said_once(tab: Tab, client: Client) -> None:
    nothing = Tab(**{**vars(tab), "fetch": lambda *_: None})
    _, *parts = draw(client, nothing)
    assert str(parts).count(tab.empty) == 1


def test_the_address_holds_what_differs_from_the_sweeps_own_defaults(client: Client) -> None:
    view = view_of(sweep.PAGE, client, "?tab=law&advice_rank=7")
    assert (view["tab"], view["advice_rank"]) == ("law", "7")
    assert (view["vertical"], view["map_rank"], view["map_method"]) == ("lr", "4", "lora")
    assert view_of(sweep.PAGE, client, "?tab=nonsense")["tab"] == "convergence"


@pytest.mark.parametrize(
    ("page", "old"),
    [("sweep", "?scale=linear"), ("dynamics", "?axis=linear"), ("sweep", "?axis_scale=linear")],
)
def test_an_old_address_still_chooses_the_linear_axis(page: str, old: str, client: Client) -> None:
    assert view_of(PAGES[page], client, old)["axis_scale"] == "linear"


def test_two_controls_of_one_name_on_a_page_are_refused() -> None:
    axis = switch("axis", "Axis", "log", ["log", "linear"])
    tabs = tuple(Tab(page="p", name=name, title=name, controls=(axis,)) for name in ("a", "b"))
    with pytest.raises(AssertionError, match=r"share a name in its address: \['axis'\]"):
        TabbedPage(name="p", tabs=tabs, watch=lambda *_: Watched("", 1, ("",)))


def test_a_value_that_the_sweep_does_not_have_shows_the_default(client: Client) -> None:
    control = choice("rank", "Rank", "1", ["1", "4"])
    assert control.show("id", "99", Subject(client, None)).value == "1"
    grows = choice("metric", "Metric", "loss", ["loss"], grows=True)
    shown = grows.show("id", "accuracy", Subject(client, None))
    assert (shown.value, shown.data) == ("accuracy", ["loss", "accuracy"])


def test_a_beat_replaces_only_the_head_that_changed(client: Client, service: FakeService) -> None:
    pulse, _, prints, *_ = look(client, sweep.PAGE, "s1", "", [])
    assert look(client, sweep.PAGE, "s1", pulse, prints)[0] is no_update
    service.answers["/sweeps/s1"] = {**SWEEP, "progress": 0.75}
    new, _, _, name, buttons, facts = look(client, sweep.PAGE, "s1", pulse, prints)
    assert new != pulse
    assert (name, buttons) == (no_update, no_update)
    assert facts is not no_update


def test_a_service_that_is_away_is_said_in_the_head_until_it_is_back(
    client: Client, service: FakeService
) -> None:
    pulse, _, prints, *_ = look(client, sweep.PAGE, "s1", "", [])
    service.gone = True
    same, _, away, *head = look(client, sweep.PAGE, "s1", pulse, prints)
    assert same is no_update
    assert "tries again by itself" in str(head[0])
    service.gone = False
    _, _, back, name, *_ = look(client, sweep.PAGE, "s1", pulse, away)
    assert isinstance(name, dmc.Group)
    assert back == prints


def buttons_of(client: Client, sweep_id: str) -> list[str]:
    buttons = look(client, sweep.PAGE, sweep_id, "", [])[4].children
    return [button.id["verb"] for button in buttons if isinstance(button, dmc.Button)]


def test_the_header_offers_what_the_api_allows_and_nothing_else(client: Client, service: FakeService) -> None:
    assert buttons_of(client, "s1") == ["pause", "stop", "cancel"]
    assert buttons_of(client, "s2") == []
    service.answers["/sweeps/s1"] = {**SWEEP, "actions": ["retry"]}
    assert buttons_of(client, "s1") == ["retry"]


@pytest.mark.parametrize(
    ("name", "search", "read"),
    [
        ("sweep", "?alphas=q~8&lrs=q&ranks=77~x", {"alphas": ["8"], "lrs": [], "ranks": ["77"]}),
        ("sweep", "?scale=zzz", {"axis_scale": "log"}),
        ("sweep", "?colour=schedule", {"colour": "alpha_schedule"}),
        ("dynamics", "?colour=schedule&alphas=q", {"colour": "alpha_schedule", "alphas": []}),
        ("curvature", "?x=q", {"x": "s"}),
    ],
)
def test_what_an_address_cannot_mean_counts_as_the_default_and_former_values_as_todays(
    name: str, search: str, read: dict[str, Any], client: Client
) -> None:
    view = view_of(PAGES[name], client, search)
    assert {key: view[key] for key in read} == read
