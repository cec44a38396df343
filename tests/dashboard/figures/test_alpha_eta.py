from __future__ import annotations

from typing import Any

from dashboard.figures.alpha_eta import map_figure, slices_figure
from dashboard.figures.style import DARK
from lora_alpha.metrics import Metric
from lora_alpha.wire.analysis import Cell


def cell(alpha: float, rank: int = 4, mean: float | None = 1.0, **more: Any) -> Cell:
    fields = {
        "n": 3, "std": 0.1, "ci_low": 0.9, "ci_high": 1.1, "num_diverged": 0, "num_failed": 0, "lr": 2e-4,
    }  # fmt: skip
    return Cell(method="lora", rank=rank, alpha=alpha, scale=alpha / rank, mean=mean, **fields | more)


def drawn(cells: list[Cell]) -> dict[str, Any]:
    return map_figure(cells, DARK, vertical="rank", label="loss")


def test_without_cells_both_figures_say_so() -> None:
    assert "No cells" in drawn([])["layout"]["annotations"][0]["text"]
    slices = slices_figure([cell(8, mean=None, n=0)], DARK, label="loss", log_y=True)
    assert "No cell has finished" in slices["layout"]["annotations"][0]["text"]


def test_only_measured_cells_become_tiles_and_the_others_are_marked() -> None:
    cells = [
        cell(8, mean=0.5),
        cell(16, mean=0.25),
        cell(32, mean=0.9, num_diverged=1),
        cell(64, mean=None, n=0, num_failed=3),
        cell(128, mean=None, n=0, num_pending=3),
    ]
    tiles, diverged, failed, waiting, best = drawn(cells)["data"]
    assert tiles["x"] == [8, 16]
    assert (diverged["x"], failed["x"], waiting["x"]) == ([32], [64], [128])
    assert (diverged["name"], failed["name"], waiting["name"]) == ("diverged", "failed", "not finished")
    assert best["x"] == [16]
    assert "1 diverged" in diverged["hovertext"][0]


def test_tiles_of_a_refined_grid_do_not_overlap() -> None:
    grid = [2.0**k for k in range(14)]
    coarse = drawn([cell(alpha) for alpha in grid])["data"][0]["marker"]["size"]
    fine = drawn([cell(alpha) for alpha in [*grid, 2**7.5]])["data"][0]["marker"]["size"]
    assert fine < 0.8 * coarse
    assert fine * 13 / 0.5 < 1000


def test_slices_are_one_line_a_rank_in_order_of_alpha() -> None:
    figure = slices_figure([cell(16), cell(8), cell(8, rank=1)], DARK, label="loss", log_y=True)
    assert [(line["name"], line["x"]) for line in figure["data"]] == [("r 1", [8]), ("r 4", [8, 16])]


def test_the_best_and_the_colours_follow_the_direction_of_the_metric() -> None:
    accuracy = Metric("accuracy", "max")
    figure = drawn([cell(8, mean=0.5, metric=accuracy), cell(16, mean=0.75, metric=accuracy)])
    tiles, best = figure["data"]
    assert best["x"] == [16]
    assert (tiles["marker"]["color"], tiles["marker"]["reversescale"]) == ([0.5, 0.75], True)


def test_values_that_are_not_above_0_make_the_axis_linear_and_it_says_so() -> None:
    cells = [cell(8, mean=0.5), cell(16, mean=-0.25), cell(32, mean=0.9, num_unreached=1)]
    vertical = slices_figure(cells, DARK, label="loss", log_y=True)["layout"]["yaxis"]
    assert (vertical["type"], vertical["title"]["text"]) == (
        "linear",
        "loss<br>(linear: some values are not above 0)",
    )
    tiles, unreached, best = drawn(cells)["data"]
    assert tiles["marker"]["color"] == [0.5, -0.25]
    assert (unreached["name"], unreached["x"], best["x"]) == ("not reached", [32], [16])
