from __future__ import annotations

from typing import Any

from dashboard.figures.routes import Base, bases, loss_figure, panels_figure, route_points
from dashboard.figures.style import DARK
from lora_alpha.wire.analysis import Cell
from lora_alpha.wire.sweeps import Curve, Curves


def cell(alpha: float, lr: float, mean: float | None = 1.0, **more: Any) -> Cell:
    fields = {
        "rank": 4, "n": 3, "std": 0.1, "ci_low": None, "ci_high": None, "num_diverged": 0, "num_failed": 0,
    }  # fmt: skip
    return Cell(method="lora", alpha=alpha, scale=alpha / 4, lr=lr, mean=mean, **fields | more)


GRID = [
    cell(16, 1e-3, 0.5),
    cell(64, 1e-3, 0.4),
    cell(256, 1e-3, 0.6),
    cell(16, 4e-3, 0.3),
    cell(16, 16e-3, None, n=0, num_diverged=3),
]
BASE = Base("lora", 4, 16, 1e-3)


def curves(*pairs: tuple[float, float]) -> Curves:
    found = [
        Curve(
            key=f"{alpha}-{lr}",
            run_ids=["a"],
            labels={"method": "lora", "rank": 4, "alpha": alpha, "lr": lr, "lr_ratio": 1.0},
            step=[10, 20, 30],
            value=[0.0, 0.01, 0.02],
        )
        for alpha, lr in pairs
    ]
    return Curves(metric="drift_ratio", metrics=["drift_ratio"], curves=found)


def test_a_base_needs_both_routes_and_the_smallest_comes_first() -> None:
    full = [cell(alpha, lr) for alpha in (16, 32) for lr in (1e-3, 2e-3)]
    assert [(base.alpha, base.lr) for base in bases(full)] == [
        (16, 1e-3),
        (16, 2e-3),
        (32, 1e-3),
        (32, 2e-3),
    ]
    assert bases(GRID) == [BASE]
    assert bases([cell(16, 1e-3), cell(32, 1e-3)]) == []
    assert bases([cell(16, 1e-3), cell(32, 1e-3, lr_ratio=16.0), cell(16, 2e-3, alpha_schedule="ramp")]) == []


def test_routes_list_their_factors_in_order() -> None:
    points = route_points(GRID, BASE, curves((16, 1e-3), (64, 1e-3)))
    assert [(point.route, point.k) for point in points] == [
        ("alpha", 1),
        ("alpha", 4),
        ("alpha", 16),
        ("lr", 1),
        ("lr", 4),
        ("lr", 16),
    ]
    assert points[1].typical == 0.01
    assert points[2].typical is None


def test_both_panels_share_axes_and_colours() -> None:
    points = route_points(GRID, BASE, curves((16, 1e-3), (64, 1e-3), (16, 4e-3)))
    figure = panels_figure(points, BASE, DARK, metric="drift_ratio")
    left = [trace for trace in figure["data"] if trace.get("xaxis") is None]
    right = [trace for trace in figure["data"] if trace.get("xaxis") == "x2"]
    assert [trace["name"] for trace in left] == [trace["name"] for trace in right] == ["k = 1", "k = 4"]
    assert [t["line"]["color"] for t in left] == [t["line"]["color"] for t in right]
    assert sum(trace["showlegend"] for trace in figure["data"]) == 2
    assert figure["layout"]["yaxis2"]["matches"] == "y"
    assert "η = 0.001" in figure["layout"]["annotations"][0]["text"]
    nothing = panels_figure(route_points(GRID, BASE), BASE, DARK, metric="purity")
    assert "No purity" in nothing["layout"]["annotations"][0]["text"]


def test_divergence_is_marked_and_counted() -> None:
    partly = cell(1024, 1e-3, 0.9, n=2, num_diverged=1)
    alpha, lr, alpha_bad, lr_bad = loss_figure(route_points([*GRID, partly], BASE), DARK, label="loss")[
        "data"
    ]
    assert lr["x"] == [1, 4], "a mean of no seeds is not drawn"
    assert (alpha_bad["x"], alpha_bad["text"]) == ([64], ["1/3"])
    assert (lr_bad["x"], lr_bad["text"]) == ([16], ["3/3"])
    assert alpha["marker"]["symbol"] == ["circle", "circle", "circle", "circle-open"]
    assert min(lr_bad["y"]) > max(alpha["y"])
    waiting = loss_figure([], DARK, label="loss")
    assert "No cell" in waiting["layout"]["annotations"][0]["text"]
