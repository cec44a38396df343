"""Each coordinate is the one that collapses losses which depend on it alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.collapse import CollapseScore, collapse_scores

Coordinate = Callable[[float, float, float], float]


def scores(coordinate: Coordinate) -> list[CollapseScore]:
    """Scores over a grid whose loss is a bowl in log ``coordinate``(α, η, r)."""
    runs = [
        RunOutcome(
            "lora",
            rank,
            alpha,
            alpha / rank,
            lr,
            0,
            "finished",
            2 + math.log(coordinate(alpha, lr, rank)) ** 2 / 99,
        )
        for rank in (1, 4, 16)
        for alpha in (8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
        for lr in (1e-4, 2e-4, 4e-4, 8e-4)
    ]
    return collapse_scores(make_cells(runs), method="lora")


@pytest.mark.parametrize(
    ("name", "coordinate"),
    [
        ("η·α", lambda alpha, lr, rank: lr * alpha),
        ("η·α/r", lambda alpha, lr, rank: lr * alpha / rank),
        ("η·α/√r", lambda alpha, lr, rank: lr * alpha / rank**0.5),
        ("η·√α", lambda alpha, lr, rank: lr * alpha**0.5),
        ("η·α²/r", lambda alpha, lr, rank: lr * alpha * alpha / rank),
    ],
)
def test_the_coordinate_that_decides_the_loss_wins(name: str, coordinate: Coordinate) -> None:
    best, *others = scores(coordinate)
    assert best.coordinate == name
    assert best.score is not None
    assert best.score > 0.99
    assert all(other.score is None or other.score < best.score for other in others)
    points = [(point.x, coordinate(point.alpha, point.lr, point.rank)) for point in best.points]
    assert all(found == pytest.approx(expected) for found, expected in points)
