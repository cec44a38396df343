from __future__ import annotations

import dataclasses
from typing import Any

from dashboard.figures.schedules import differences_figure, loss_figure, scale_figure
from dashboard.figures.style import DARK
from lora_alpha.wire.analysis import Cell, ScheduleComparison, Schedules
from lora_alpha.wire.sweeps import Curve, Curves


def item(schedule: str, difference: float | None, verdict: str, **more: Any) -> ScheduleComparison:
    fields = {
        "method": "lora", "rank": 4, "lr": 1e-3, "lr_ratio": 1.0, "best_alpha": 8.0, "loss": 1.0,
        "constant_alpha": 8.0, "constant_loss": 1.0, "num_alphas": 3, "num_diverged": 0, "num_seeds": 3,
        "reason": "because",
    }  # fmt: skip
    low = None if difference is None else difference - 0.01
    high = None if difference is None else difference + 0.02
    return ScheduleComparison(
        alpha_schedule=schedule, difference=difference, low=low, high=high, verdict=verdict, **fields | more
    )


def answer(*items: ScheduleComparison) -> Schedules:
    return Schedules(sweep_id="x", objective="final", margin=0.02, verdict="", items=list(items))


def cell(schedule: str, alpha: float, mean: float | None = 1.0) -> Cell:
    return Cell(
        method="lora", rank=4, alpha=alpha, scale=alpha / 4, lr=1e-3, n=3, mean=mean, std=0.1, ci_low=0.9,
        ci_high=1.1, num_diverged=0, num_failed=0, alpha_schedule=schedule,
    )  # fmt: skip


CELLS = [cell(name, alpha) for name in ("ramp", "constant") for alpha in (16, 8)]


def test_intervals_are_grouped_by_verdict_and_keep_their_order() -> None:
    figure = differences_figure(answer(item("a", 0.1, "worse"), item("b", -0.1, "better")), DARK)
    better, worse = figure["data"]
    assert (better["name"], better["x"], better["y"]) == ("better", [-0.1], ["b"])
    assert round(worse["error_x"]["array"][0], 6) == 0.02
    assert round(worse["error_x"]["arrayminus"][0], 6) == 0.01
    assert figure["layout"]["yaxis"]["categoryarray"] == ["b", "a"]
    band = figure["layout"]["shapes"][0]
    assert (band["x0"], band["x1"]) == (-0.02, 0.02)


def test_what_cannot_be_compared_is_said_in_words() -> None:
    for items in ([], [item("a", None, "not_enough_data")]):
        figure = differences_figure(answer(*items), DARK)
        assert "No schedule can be compared" in figure["layout"]["annotations"][0]["text"]
    assert loss_figure([cell("ramp", 8, None)], DARK, label="loss")["data"] == []
    assert scale_figure(Curves(metric="scale", metrics=[], curves=[]), CELLS, DARK)["data"] == []


def test_several_ranks_are_told_apart() -> None:
    figure = differences_figure(answer(item("a", 0.1, "worse"), item("a", 0.2, "worse", rank=8)), DARK)
    assert figure["data"][0]["y"] == ["a, r 4", "a, r 8"]
    cells = [*CELLS, *(dataclasses.replace(one, lr=2e-3, rank=8) for one in CELLS)]
    names = [line["name"] for line in loss_figure(cells, DARK, label="loss")["data"]]
    assert names == [
        "constant, r 4, η 0.001",
        "constant, r 8, η 0.002",
        "ramp, r 4, η 0.001",
        "ramp, r 8, η 0.002",
    ]


def test_no_two_curves_of_the_scale_are_called_alike() -> None:
    curves = [
        Curve(
            key=str(rank), run_ids=["a"], step=[1, 2], value=[1, 2],
            labels={"alpha_schedule": "ramp", "alpha": 8, "rank": rank, "lr": 1e-3, "method": "lora"},
        )
        for rank in (4, 8)
    ]  # fmt: skip
    lines = scale_figure(Curves(metric="scale", metrics=[], curves=curves), CELLS, DARK)["data"]
    assert [line["name"] for line in lines] == ["ramp, r 4, α 8", "ramp, r 8, α 8"]


def test_an_interval_without_an_end_has_an_arm_without_a_length() -> None:
    open_end = dataclasses.replace(item("a", 0.1, "undecided"), high=None)
    (line,) = differences_figure(answer(open_end), DARK)["data"]
    assert line["error_x"]["array"] == [None]


def test_constant_alpha_comes_first_and_bold_and_colours_agree_between_figures() -> None:
    constant, ramp = loss_figure(CELLS, DARK, label="loss")["data"]
    assert (constant["name"], constant["line"]["width"], constant["x"]) == ("constant", 3, [8, 16])
    curve = Curve(
        key="k", run_ids=["a"], labels={"alpha_schedule": "ramp", "alpha": 8}, step=[1, 2], value=[1, 2]
    )
    (scale,) = scale_figure(Curves(metric="scale", metrics=[], curves=[curve]), CELLS, DARK)["data"]
    assert scale["line"] == ramp["line"]
    assert scale["name"] == "ramp, α 8"
