from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dashboard.figures.curvature import extremes_figure, layers_of, steps_of
from dashboard.figures.density import density_figure, density_grid
from dashboard.figures.style import DARK
from dashboard.figures.suppression import rates_figure, suppression_figure
from lora_alpha.analysis.sharpness import SuppressionPoint
from lora_alpha.wire.analysis import Curvature, RateAtSharpness, Sharpness, Suppression
from lora_alpha.wire.jobs import Probe


def point(space: str, highest: float, lowest: float | None = -1.0, **more: Any) -> Sharpness:
    fields: dict[str, Any] = {
        "rank": 4,
        "alpha": 8.0,
        "scale": 2.0,
        "seed": 0,
        "step": 0,
        "layer": "",
        **more,
    }
    return Sharpness(
        probe_id="p", run_id=None, workload="mlp", space=space, method="lora", lr=None, in_features=64,
        lambda_max=highest, lambda_max_error=1e-3, lambda_min=lowest, lambda_min_error=None, **fields,
    )  # fmt: skip


def curvature(points: list[Sharpness], **more: Any) -> Curvature:
    fields = {
        "sweep_id": None, "suppression": [], "rates": [], "rate_exponent": None, "num_unfinished": 0,
        "num_failed": 0,
    }  # fmt: skip
    return Curvature(points=points, **fields | more)


def suppression(crossing: float | None, **more: Any) -> Suppression:
    return Suppression(
        method="lora", rank=4, lr=None, step=0, crossing=crossing, slope=1.5, predicted=27.7, in_features=64,
        points=tuple(SuppressionPoint(a, a / 4, a / 16, 1) for a in (8.0, 32.0)),
        reason="" if crossing else "below 1", **more,
    )  # fmt: skip


def density_probe(state: str = "finished", values: tuple[float, ...] = (0.1, 2.0, 0.0)) -> Probe:
    rows = [
        {"kind": kind, "index": index, "value": value, "error": None}
        for kind, numbers in (("density_grid", (-1.0, 0.0, 5.0)), ("density", values))
        for index, value in enumerate(numbers)
    ]
    return Probe(
        id="p1", state=state, kind="density", space="lora", spec={}, created_at=datetime.now(UTC),
        result={"rows": rows[::-1], "point": {"rank": 4, "alpha": 8.0, "step": 0}},
    )  # fmt: skip


def test_signed_ends_go_to_two_panels_and_the_full_weight_is_a_line() -> None:
    points = [
        point("lora", 4.0, -2.0),
        point("lora", 6.0, -4.0, seed=1),
        point("lora", 16.0, -8.0, alpha=16.0, scale=4.0),
        point("full", 10.0, -5.0),
        point("lora", 99.0, step=100),
    ]
    figure = extremes_figure(points, DARK, x="s", step=0)
    upper, full_upper, lower, full_lower = figure["data"]
    assert (upper["x"], upper["y"]) == ([2.0, 4.0], [5.0, 16.0])
    assert upper["error_y"]["array"] == [pytest.approx(2**0.5), 0]
    assert (lower["y"], lower["yaxis"]) == ([3.0, 8.0], "y2")
    assert lower["customdata"][0] == [-3.0, 2]
    assert (full_upper["y"], full_lower["y"]) == ([10.0, 10.0], [5.0, 5.0])
    assert figure["layout"]["yaxis2"]["autorange"] == "reversed"
    assert [t["name"] for t in extremes_figure(points, DARK, x="r", step=0)["data"][:2]] == [
        "LoRA, α 8",
        "LoRA, α 16",
    ]


@pytest.mark.parametrize(("x", "wanted"), [("s", 2.0), ("s²", 4.0), ("r", 4), ("α", 8.0)])
def test_the_axis_can_be_switched(x: str, wanted: float) -> None:
    assert extremes_figure([point("lora", 4.0)], DARK, x=x, step=0)["data"][0]["x"] == [wanted]


def test_extremes_without_lora_points_or_a_positive_end_do_not_fail() -> None:
    figure = extremes_figure([point("full", 4.0)], DARK, x="s", step=0)
    assert "No probe in LoRA coordinates" in figure["layout"]["annotations"][0]["text"]
    convex = extremes_figure([point("lora", 4.0, 0.5), point("lora", 5.0, None)], DARK, x="s", step=0)
    assert len(convex["data"]) == 1
    spread = extremes_figure(
        [point("lora", 4.0), point("full", 4.0), point("full", 8.0)], DARK, x="s", step=0
    )
    assert sum(trace.get("fill") == "toself" for trace in spread["data"]) == 1


def test_layers_and_steps_on_offer_are_those_probed() -> None:
    found = curvature([point("lora", 1.0, layer="2"), point("lora", 2.0, step=50)])
    assert (layers_of(found), steps_of(found)) == (["2"], [0, 50])
    assert extremes_figure(found.points, DARK, x="s", step=0, layer="2")["data"][0]["y"] == [1.0]


def test_the_crossing_and_its_prediction_are_marked() -> None:
    figure = suppression_figure([suppression(16.0)], DARK, step=0)
    assert [trace["x"] for trace in figure["data"][:3]] == [[8.0, 32.0], [27.7], [16.0]]
    assert figure["data"][2]["marker"]["symbol"] == "star"
    without = suppression_figure([suppression(None)], DARK, step=0)["data"]
    assert not any(trace["marker"]["symbol"] == "star" for trace in without)
    nothing = suppression_figure([suppression(16.0)], DARK, step=100)
    assert "Needs probes in both spaces" in nothing["layout"]["annotations"][0]["text"]


def test_best_rates_stand_beside_a_slope_of_one() -> None:
    rates = [
        RateAtSharpness(
            method="lora", rank=4, alpha=a, lambda_max=a, lr=2.0 / a, lr_low=None, lr_high=None, censored=c
        )
        for a, c in ((8.0, ""), (32.0, "high_edge"))
    ]  # fmt: skip
    dots, line = rates_figure(curvature([], rates=rates), DARK)["data"]
    assert dots["x"] == [1 / 8, 1 / 32]
    assert dots["marker"]["symbol"] == ["circle", "circle-open"]
    assert [y / x for x, y in zip(line["x"], line["y"], strict=True)] == pytest.approx([2.0, 2.0])
    assert "Needs a best η" in rates_figure(curvature([]), DARK)["layout"]["annotations"][0]["text"]


def test_density_is_read_in_order_and_cut_at_its_floor() -> None:
    assert density_grid(density_probe()) == ([-1.0, 0.0, 5.0], [0.1, 2.0, 0.0])
    (line,) = density_figure([density_probe()], DARK)["data"]
    assert line["y"] == [0.1, 2.0, 2e-6]
    assert line["name"] == "LoRA, r 4, α 8, step 0"
    assert density_grid(density_probe("running")) is None
    empty = density_figure([density_probe("failed")], DARK)
    assert "No spectral density" in empty["layout"]["annotations"][0]["text"]
