from __future__ import annotations

from typing import Any

import pytest

from dashboard.figures.bands import log_view, spread_band
from dashboard.figures.dynamics import layer_figure, over_steps_figure, short_names, twin_of
from dashboard.figures.style import DARK, LIGHT
from lora_alpha.wire.sweeps import Curve, Curves


def curve(value: list[float | None], *, alpha: float = 8.0, lr: float = 1e-3, **more: Any) -> Curve:
    labels = {"method": "lora", "rank": 4, "alpha": alpha, "scale": alpha / 4, "lr": lr, "lr_ratio": 1.0}
    fields = {"step": [10.0 * (i + 1) for i in range(len(value))], **more}
    return Curve(key=f"{alpha}-{lr}", run_ids=["a", "b"], labels=labels, value=value, **fields)


def drawn(curves: list[Curve], *, metric: str = "drift_ratio", log_y: bool = True) -> dict[str, Any]:
    found = Curves(metric=metric, metrics=[metric], curves=curves)
    return over_steps_figure(found, DARK, colour_by="alpha", log_y=log_y)


def test_without_values_the_figure_names_what_is_missing() -> None:
    for curves in ([], [curve([None, None])]):
        figure = drawn(curves, metric="purity")
        assert figure["data"] == []
        assert figure["layout"]["annotations"][0]["text"].startswith("No purity")


def test_identical_curves_can_be_told_from_each_other() -> None:
    same, other = [0.1, 0.05, 0.04], [0.1, 0.05, 0.041]
    curves = [curve(same), curve(same, alpha=4.0, lr=2e-3), curve(other, alpha=16.0)]
    assert twin_of(curves) == {1: 0}
    first, third, twin = drawn(curves)["data"]
    assert twin["line"]["dash"] != first["line"]["dash"]
    assert twin["line"]["color"] != first["line"]["color"]
    assert twin["marker"]["symbol"] == "circle-open"
    assert twin["name"].endswith(f"(= {first['name']})")
    assert "exactly equal to" in twin["hovertemplate"]
    assert "exactly equal" not in third["hovertemplate"]


def test_names_hold_only_what_differs() -> None:
    assert short_names([curve([1.0]), curve([1.0], alpha=16.0)]) == ["α 8", "α 16"]
    assert short_names([curve([1.0])]) == ["all runs"]


def test_a_signed_metric_has_no_log_axis_and_zero_no_place_on_one() -> None:
    assert drawn([curve([0.2, -0.1])], metric="purity")["layout"]["yaxis"]["type"] == "linear"
    logarithmic = drawn([curve([0.0, 0.1, 0.2])])
    assert logarithmic["layout"]["yaxis"]["type"] == "log"
    assert logarithmic["data"][0]["y"] == [None, 0.1, 0.2]


def test_a_diverged_curve_does_not_stretch_the_axis() -> None:
    dead = curve([1e-2, 1e-12], alpha=99.0, diverged=True)
    low, high = drawn([curve([1e-2, 5e-3]), dead])["layout"]["yaxis"]["range"]
    assert -2.5 < low < high < -1.8
    assert log_view([dead])["range"][0] < -12
    assert log_view([curve([None])]) == {}
    names = [trace["name"] for trace in drawn([curve([1e-2]), dead])["data"]]
    assert names == ["α 8", "α 99 ✕"]


def test_many_curves_share_one_legend_entry_a_colour() -> None:
    curves = [curve([0.1 + 0.01 * k], alpha=2.0 ** (k % 3), lr=1e-3 * (k + 1)) for k in range(20)]
    figure = drawn(curves)
    assert [trace["name"] for trace in figure["data"] if trace["showlegend"]] == ["1", "2", "4"]
    assert figure["layout"]["legend"]["title"]["text"] == "α"


def test_a_band_needs_two_points_with_a_spread() -> None:
    whole = curve([1.0, 2.0, 3.0], std=[0.1, 2.5, 0.3], n=[2, 2, 2])
    (band,) = spread_band(whole, "#112233", log_y=True)
    assert band["x"] == [10.0, 30.0, 30.0, 10.0], "the middle would reach below 0"
    assert spread_band(curve([1.0, 2.0]), "#112233", log_y=False) == []


def test_layers_are_tiles_whose_gaps_stay_gaps() -> None:
    rows = {"0": [0.1, None, 0.001], "2": [None, 0.01, 0.1]}
    figure = layer_figure(rows, [10.0, 20.0, 30.0], LIGHT, metric="drift_ratio", across="step")
    (tiles,) = figure["data"]
    assert tiles["z"][0] == pytest.approx([-1, None, -3])
    assert tiles["customdata"][1] == ["–", "0.01", "0.1"]
    assert tiles["y"] == ["0", "2"]
    signed = layer_figure({"0": [-0.5, 0.5]}, ["a", "b"], LIGHT, metric="purity", across="x")
    assert signed["data"][0]["z"] == [[-0.5, 0.5]]
    assert signed["layout"]["xaxis"]["type"] == "category"
    nothing = layer_figure({"0": [None]}, [1.0], LIGHT, metric="purity", across="x")
    assert "No per-layer values" in nothing["layout"]["annotations"][0]["text"]
    constant = layer_figure({"0": [0.0, 0.0]}, [1.0, 2.0], LIGHT, metric="drift_ratio", across="x")
    assert constant["data"][0]["z"] == [[0.0, 0.0]]
