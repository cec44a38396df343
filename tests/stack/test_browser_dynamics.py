"""The pages of dynamics and curvature in a real browser, on real runs and probes."""

from __future__ import annotations

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

RAMP = {"kind": "ramp", "start": 0.1, "ramp_steps": 20}
HOLD = {"kind": "hold", "target_metric": "update_norm", "target": 1.0}
CELLS = [
    {"alpha": 8, "lr": 1e-3},
    {"alpha": 32, "lr": 1e-3},
    {"alpha": 128, "lr": 1e-3},
    {"alpha": 8, "lr": 4e-3},
    {"alpha": 8, "lr": 8.0},  # diverges
    {"alpha": 8, "lr": 1e-3, "lr_ratio": 4, "eps_ratio": 0.25},  # equal to α 32
    *({"alpha": 32, "lr": 1e-3, "alpha_schedule": moves} for moves in (RAMP, HOLD)),
]
REQUEST = {
    "name": "both routes",
    "workload": "mlp",
    "workload_options": {"width": 16, "shift_rank": 2},
    "cells": [{"method": "lora", "rank": 2, "seed": seed, **cell} for cell in CELLS for seed in (0, 1)],
    "steps": 40,
    "eval_every": 10,
    "dynamics_every": 10,
    "probes": {"at": ["init"], "kinds": ["extremes"], "spaces": ["lora", "full"]},
}


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with open_page(stack.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def sweep(stack: Stack) -> str:
    with stack.client() as client:
        made = client.create_sweep(REQUEST)
        done = stack.wait(made.id)
        assert (done.state, done.counts.diverged) == ("finished", 2)
        stack.wait_until(made.id, lambda _: client.curvature(made.id).num_unfinished == 0)
    return made.id


def lines(page: Page, figure: str) -> int:
    page.locator(f"#{figure} .scatterlayer .trace").first.wait_for(state="attached")
    return page.locator(f"#{figure} .scatterlayer .trace").count()


def test_before_any_sweep_both_pages_say_what_to_do(page, stack):
    page.goto(f"{stack.address}/dynamics")
    page.get_by_text("No dynamics yet").wait_for()
    page.goto(f"{stack.address}/curvature")
    page.get_by_text("No probe in LoRA coordinates at this step has finished yet.").wait_for()
    page.get_by_role("tab", name="Probes", exact=True).click()
    page.get_by_text("No probe at a fresh adapter yet").wait_for()


def test_the_metric_lives_in_the_address_and_survives_a_reload(page, stack, sweep):
    page.goto(f"{stack.address}/dynamics?sweep={sweep}")
    assert lines(page, "dynamics-steps") >= len(CELLS) - 1
    page.get_by_text("16 of 16 runs finished, 2 diverged").wait_for()
    page.get_by_role("textbox", name="Metric").first.click()
    page.get_by_role("option", name="purity").click()
    page.wait_for_url(re.compile("metric=purity"))
    page.reload()
    page.locator("#dynamics-steps .ytitle", has_text="purity").wait_for()


def test_identical_curves_are_pointed_out(page, stack, sweep):
    page.goto(f"{stack.address}/dynamics?sweep={sweep}&metric=train_loss")
    page.get_by_text(re.compile(r"1 of 8 curves lie exactly on another")).wait_for()
    page.locator("#dynamics-steps .legendtext", has_text="(= α 32, η 0.001)").first.wait_for()


def test_both_routes_show_their_losses_and_the_divergence(page, stack, sweep):
    page.goto(f"{stack.address}/dynamics?sweep={sweep}&tab=routes")
    page.get_by_text("α × k: best eval_loss").wait_for()
    page.get_by_text("first divergence at k = 8000").wait_for()
    expect(page.get_by_role("textbox", name="Base configuration")).to_have_value("lora, r 2, α 8, η 0.001")
    assert lines(page, "dynamics-routes") >= 5
    page.locator("#dynamics-routes-loss .textpoint", has_text="2/2").wait_for()
    page.get_by_text("Table: both routes").click()
    expect(page.locator("#dynamics-routes-table tbody tr")).to_have_count(6)


def test_layers_are_shown_over_steps_and_over_configurations(page, stack, sweep):
    page.goto(f"{stack.address}/dynamics?sweep={sweep}&tab=layers")
    page.locator("#dynamics-layers .heatmaplayer image").first.wait_for(state="attached")
    page.get_by_text("configurations, last step").click()
    page.wait_for_url(re.compile("across=configurations"))
    page.locator("#dynamics-layers .xtitle", has_text="configuration").wait_for()


def test_the_page_says_whether_a_schedule_beats_constant_alpha(page, stack, sweep):
    page.goto(f"{stack.address}/dynamics?sweep={sweep}&tab=schedules")
    with stack.client() as client:
        answer = client.schedules(sweep)
        runs = client.all_runs(sweep)
    assert {item.alpha_schedule for item in answer.items} == {"ramp 0.1→1 in 20", "hold update_norm 1"}
    # α stands for the scale that a ramp ends at; where the norm is held the run shows the final one.
    assert all((run.scale == run.alpha / 2) == (run.alpha_schedule[:4] != "hold") for run in runs)
    word = answer.verdict.partition(":")[0]
    page.get_by_text(f"Does any schedule beat the best constant α? {word}.").wait_for()
    for name in ("dynamics-schedules", "dynamics-schedules-loss", "dynamics-schedules-scale"):
        assert lines(page, name) >= 1


def test_a_sweep_without_dynamics_says_how_to_get_them(page, stack):
    with stack.client() as client:
        plain = client.create_sweep(
            {
                "workload": "mlp",
                "workload_options": {"width": 16},
                "ranks": [2],
                "alphas": [8],
                "seeds": [0],
                "steps": 10,
                "dynamics_every": 0,
            }
        )
    stack.wait(plain.id)
    page.goto(f"{stack.address}/dynamics?sweep={plain.id}&tab=routes")
    page.get_by_text("No signal and drift in this sweep").wait_for()
    page.get_by_text("Needs cells that differ from one configuration").wait_for()
    page.goto(f"{stack.address}/dynamics?sweep=nonsense")
    page.get_by_text("there is no sweep").wait_for()


def test_extremes_and_suppression_of_a_sweep(page, stack, sweep):
    page.goto(f"{stack.address}/curvature?sweep={sweep}")
    # In each panel LoRA, the full weight, and the range of the full weight over both seeds.
    assert lines(page, "extremes-figure") == 6
    page.get_by_text("α", exact=True).first.click()
    page.wait_for_url(re.compile("x=%CE%B1"))
    page.locator("#extremes-figure .x2title", has_text="α").wait_for()
    page.get_by_role("tab", name="Suppression").click()
    page.wait_for_url(re.compile("tab=suppression"))
    row = page.locator("#suppression-figure-table tbody tr")
    expect(row).to_have_count(1)
    with stack.client() as client:
        (curve,) = client.curvature(sweep).suppression
    assert len(curve.points) == 3
    expect(row).to_contain_text(f"{curve.predicted:.3g}")


def test_the_probe_form_marks_a_bad_field_then_shows_estimate_and_result(page, stack, sweep):
    page.goto(f"{stack.address}/curvature?sweep={sweep}&tab=probes")
    page.get_by_text("More: exactness and data").click()
    page.get_by_label("Tolerance").fill("tiny")
    page.get_by_role("button", name="Start probe").click()
    page.get_by_text(re.compile("got 'tiny'")).wait_for()
    page.get_by_label("Tolerance").fill("1e-4")
    page.get_by_role("textbox", name="Kind").click()
    page.get_by_role("option", name="density").click()
    page.get_by_role("button", name="Start probe").click()
    page.get_by_text("Started", exact=True).wait_for()
    expect(page.get_by_text(re.compile("got 'tiny'"))).to_have_count(0)
    done = page.locator("#probe-list tr", has_text="density").filter(has_text="finished")
    expect(done).to_have_count(2, timeout=30_000)
    expect(done.first).to_contain_text("coordinates, about")
    page.get_by_role("tab", name="Spectral density").click()
    assert lines(page, "density-figure") == 2


def test_a_probe_at_a_fresh_adapter_shows_progress_and_can_be_cancelled(page, stack):
    page.goto(f"{stack.address}/curvature?sweep=fresh&tab=probes")
    page.get_by_role("textbox", name="Kind").click()
    page.get_by_role("option", name="density").click()
    page.get_by_role("textbox", name="Space").click()
    page.get_by_role("option", name="full weights").click()
    page.get_by_text("More: exactness and data").click()
    page.get_by_label("Lanczos iterations").fill("1000")
    page.get_by_label("Start vectors").fill("200")
    page.get_by_role("button", name="Start probe").click()
    row = page.locator("#probe-list tr", has_text="density")
    expect(row).to_contain_text("coordinates, about", timeout=30_000)
    expect(row).to_contain_text("running")
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("cancelled", timeout=30_000)


def test_the_probes_of_the_page_can_be_downloaded(page, stack, sweep):
    page.goto(f"{stack.address}/curvature?sweep={sweep}&tab=probes")
    with page.expect_download() as download:
        page.get_by_role("link", name="probes.csv").click()
    with stack.client() as client:
        assert Path(download.value.path()).read_bytes() == b"".join(client.export_csv("probes", sweep))
