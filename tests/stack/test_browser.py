"""The dashboard in a real browser, on real runs."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).parent))
from browsing import open_page  # noqa: E402
from conftest import Stack  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REQUEST = {
    "name": "three ranks",
    "workload": "mlp",
    "workload_options": {"width": 16, "shift_rank": 2},
    "ranks": [1, 2, 4],
    "alphas": [2, 8, 32, 128, 512],
    "lrs": [1e-3, 4e-3],
    "seeds": [0, 1, 2],
    "steps": 60,
    "eval_every": 20,
}


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with open_page(stack.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(stack: Stack) -> str:
    with stack.client() as client:
        sweep = client.create_sweep(REQUEST)
    assert stack.wait(sweep.id).state == "finished"
    return sweep.id


def test_an_empty_installation_says_what_to_do(page, stack):
    page.goto(stack.address)
    page.get_by_text("No sweep yet").wait_for()
    page.get_by_role("link", name="Create the first sweep").click()
    page.get_by_role("heading", name="New sweep").wait_for()


def test_the_form_plans_while_typing_and_marks_the_bad_field(page, stack):
    page.goto(f"{stack.address}/new")
    page.get_by_text("189", exact=True).wait_for()
    page.get_by_label("Ranks r").fill("1, banana")
    page.get_by_label("Ranks r").blur()
    page.get_by_text("got 'banana'").wait_for()
    expect(page.get_by_role("button", name="Submit sweep")).to_be_disabled()
    page.get_by_label("Ranks r").fill("1..4")
    page.get_by_label("Ranks r").blur()
    page.get_by_text("81", exact=True).wait_for()
    expect(page.get_by_role("button", name="Submit sweep")).to_be_enabled()


def test_a_sweep_submitted_in_the_form_shows_points_while_it_runs_and_then_its_law(page, stack):
    page.goto(f"{stack.address}/new?workload=mlp")
    page.get_by_text("189", exact=True).wait_for()
    for label, text in (
        ("width", "16"),
        ("Ranks r", "1..4"),
        ("α", "8, 32, 128, 512, 2048"),
        ("Steps", "400"),
    ):
        field = page.get_by_label(label, exact=True)
        field.fill(text)
        field.blur()
    page.get_by_text("45", exact=True).wait_for()
    page.get_by_role("button", name="Submit sweep").click()
    page.wait_for_url(re.compile(r"/sweep/\w+"))
    page.locator("#convergence-figure .scatterlayer .trace").first.wait_for(state="attached", timeout=60_000)
    sweep_id = re.search(r"/sweep/(\w+)", page.url)[1]
    stack.wait(sweep_id)
    page.get_by_role("tab", name="Law").click()
    page.get_by_text(re.compile(r"α\* = \d+ · r\^")).first.wait_for()
    page.locator("#law-figure .scatterlayer .trace").first.wait_for(state="attached")
    assert "tab=law" in page.url


def test_the_view_lives_in_the_address_and_survives_a_reload(page, stack, finished):
    page.goto(f"{stack.address}/sweep/{finished}")
    page.get_by_role("textbox", name="Colour by").click()
    page.get_by_role("option", name="alpha", exact=True).click()
    page.wait_for_url(re.compile("colour=alpha"))
    page.get_by_role("tab", name="α–η map").click()
    page.wait_for_url(re.compile("tab=map"))
    page.reload()
    page.locator("#map-figure .scatterlayer .trace").first.wait_for(state="attached")
    page.get_by_role("tab", name="Convergence").click()
    expect(page.get_by_role("textbox", name="Colour by")).to_have_value("alpha")


def test_a_tab_seen_before_is_neither_drawn_again_nor_loses_its_figure(page, stack, finished):
    page.goto(f"{stack.address}/sweep/{finished}")
    traces = page.locator("#convergence-figure .scatterlayer .trace")
    traces.first.wait_for(state="attached")
    page.get_by_role("tab", name="α–η map").click()
    page.locator("#map-figure .scatterlayer .trace").first.wait_for(state="attached")
    count, answers = traces.count(), []
    page.on("response", lambda answer: answers.append(answer))
    page.get_by_role("tab", name="Convergence").click()
    page.wait_for_url(re.compile(rf"{finished}$"))
    page.get_by_role("tab", name="Law").click()
    page.locator("#law-figure .scatterlayer .trace").first.wait_for(state="attached")
    assert traces.count() == count > 0
    asked = [
        answer for answer in answers if "sweep-convergence-drawn.data" in (answer.request.post_data or "")
    ]
    assert asked
    assert all(answer.json()["response"] == {} for answer in asked), "everything stays"


def test_an_old_address_still_chooses_the_linear_axis(page, stack, finished):
    page.goto(f"{stack.address}/sweep/{finished}?scale=linear")
    page.locator("#convergence-figure .scatterlayer .trace").first.wait_for(state="attached")
    expect(page.get_by_role("radio", name="linear").first).to_be_checked()


@pytest.mark.parametrize("kind", ["runs", "history", "cells", "optima", "law", "horizon", "probes"])
def test_each_csv_that_the_page_offers_equals_the_api(page, stack, finished, kind):
    page.goto(f"{stack.address}/sweep/{finished}?tab=export")
    with page.expect_download() as download:
        page.get_by_role("link", name=f"{kind}.csv").click()
    downloaded = Path(download.value.path()).read_bytes()
    with stack.client() as client:
        assert downloaded == b"".join(client.export_csv(kind, finished))
        rows = list(csv.DictReader(io.StringIO(downloaded.decode())))
        if kind == "runs":
            assert len(rows) == 90
            losses = {run.id: run.final_loss for run in client.all_runs(finished)}
            assert {row["run_id"]: float(row["final_loss"]) for row in rows} == losses
        if kind == "optima":
            shown = {
                (optimum.rank, law.lr): optimum.value
                for law in client.law(finished).laws
                for optimum in law.optima
            }
            alphas = [row for row in rows if row["target"] == "alpha"]
            assert {(int(r["rank"]), float(r["lr"])): float(r["alpha_star"]) for r in alphas} == shown


def test_equivalence_and_runs_tabs_show_their_verdicts_and_rows(page, stack, finished):
    page.goto(f"{stack.address}/sweep/{finished}?tab=equivalence")
    page.get_by_text("Margin ±2%").or_(page.get_by_text("ranks disagree")).first.wait_for()
    page.goto(f"{stack.address}/sweep/{finished}?tab=runs")
    page.get_by_role("gridcell", name="r1-a2-lr1e-3-s0").click()
    page.get_by_text("finished, attempt 1").wait_for()


def test_dark_mode_is_remembered(page, stack, finished):
    page.goto(f"{stack.address}/sweep/{finished}")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.locator("html[data-mantine-color-scheme=dark]").wait_for()
    page.reload()
    page.locator("html[data-mantine-color-scheme=dark]").wait_for()
    page.get_by_role("button", name="Switch between light and dark").click()
    page.locator("html[data-mantine-color-scheme=light]").wait_for()


def test_other_pages_show_real_data(page, stack, finished):
    page.goto(f"{stack.address}/laws?sweeps={finished}")
    page.locator("#laws-figure .scatterlayer .trace").first.wait_for(state="attached")
    page.goto(f"{stack.address}/workers")
    page.get_by_text("last sign of life").wait_for()
    page.goto(f"{stack.address}/sweep/nonsense")
    page.get_by_text("there is no sweep").wait_for()
