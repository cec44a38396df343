from __future__ import annotations

from typing import Any

from dashboard.figures.convergence import MAX_BANDS, ConvergenceView, convergence_figure, smooth
from dashboard.figures.style import DARK
from lora_alpha.wire.sweeps import Curve, Curves


def curve(rank: int, alpha: float, values: list[float | None], **more: Any) -> Curve:
    return Curve(
        key=f"{rank}-{alpha}",
        run_ids=["a", "b"],
        labels={"rank": rank, "alpha": alpha},
        step=[float(step) for step in range(len(values))],
        value=values,
        **more,
    )


def figure(curves: list[Curve], *, metric: str = "eval_loss", **view: Any) -> dict[str, Any]:
    answer = Curves(metric=metric, metrics=[metric], curves=curves)
    return convergence_figure(answer, ConvergenceView(**view), DARK, label="loss")


def test_without_a_point_the_figure_says_so() -> None:
    assert figure([])["data"] == []
    empty = figure([curve(1, 2, [None, None])])
    assert "No points yet" in empty["layout"]["annotations"][0]["text"]


def test_each_colour_has_one_legend_entry() -> None:
    drawn = figure([curve(rank, alpha, [1.0, 0.5]) for rank in (1, 4) for alpha in (8, 16)])["data"]
    assert [line["name"] for line in drawn if line["showlegend"]] == ["1", "4"]


def test_of_many_curves_the_best_of_each_colour_stands_out_on_top() -> None:
    many = [curve(rank, alpha, [1.0, alpha / 100 + rank]) for rank in (1, 4) for alpha in range(1, MAX_BANDS)]
    diverged = curve(1, 0.5, [1.0, 0.001], diverged=True)
    drawn = figure([*many, diverged])["data"]
    strong = [line for line in drawn if line["opacity"] == 1]
    assert [(line["name"], line["y"][-1]) for line in strong] == [("1", 1.01), ("4", 4.01)]
    assert drawn[-2:] == strong
    assert [line["name"] for line in drawn if line["showlegend"]] == ["1", "4"]


def test_no_curve_stands_out_where_lower_is_not_better() -> None:
    many = [curve(rank, alpha, [1.0, 2.0]) for rank in (1, 4) for alpha in range(1, MAX_BANDS)]
    assert {line["opacity"] for line in figure(many, metric="grad_norm")["data"]} == {1}


def test_a_band_is_the_mean_plus_and_minus_one_standard_deviation() -> None:
    band = figure([curve(1, 2, [1.0, 0.5], std=[0.1, 0.2], n=[2, 2])])["data"][0]
    assert band["y"] == [1.1, 0.7, 0.3, 0.9]
    # A band that would pass below 0 cannot be drawn on a log axis.
    assert len(figure([curve(1, 2, [1.0, 0.5], std=[2.0, 2.0], n=[2, 2])])["data"]) == 1


def test_smoothing_never_rewrites_the_past() -> None:
    values: list[float | None] = [1.0, None, 3.0, 2.0]
    assert smooth(values, 0.9)[:3] == smooth(values[:3], 0.9)
    assert smooth(values, 0.9)[1] is None
