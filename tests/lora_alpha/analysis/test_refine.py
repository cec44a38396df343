from __future__ import annotations

import math

import pytest

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.refine import coarse_grid, next_alphas


def curve(losses: dict[float, float | None]) -> list[Cell]:
    """Cells by α; None is a diverged one."""
    return make_cells(
        RunOutcome("lora", 4, alpha, alpha / 4, 1e-3, 0, "finished", loss, diverged=loss is None)
        for alpha, loss in losses.items()
    )


@pytest.mark.parametrize(
    ("alphas", "coarse"),
    [
        ([2.0**k for k in range(5, 14)], [32, 128, 512, 2048, 8192]),
        ([8], [8]),
        ([8, 16], [8, 16]),
        ([1, 10, 100], [1, 10, 100]),
        ([64, 32, 128], [32, 128]),
    ],
)
def test_a_coarse_grid_keeps_the_ends(alphas: list[float], coarse: list[float]) -> None:
    assert coarse_grid(alphas) == coarse


def test_gaps_around_the_best_are_halved() -> None:
    assert next_alphas(curve({32: 3, 128: 1, 512: 2}), low=1, high=1e5) == [64, 256]
    assert next_alphas(curve({64: 3, 128: 1, 256: 2}), low=1, high=1e5) == pytest.approx(
        [128 / math.sqrt(2), 128 * math.sqrt(2)], rel=1e-5
    )


def test_half_an_octave_is_enough() -> None:
    root = math.sqrt(2)
    assert next_alphas(curve({128 / root: 2, 128: 1, 128 * root: 2}), low=1, high=1e5) == []


def test_an_edge_is_followed_as_far_as_allowed() -> None:
    assert next_alphas(curve({32: 1, 45.2548: 2}), low=1, high=1e5) == [16]
    assert next_alphas(curve({32: 1, 45.2548: 2}), low=20, high=1e5) == []
    assert next_alphas(curve({32: 2, 45.2548: 1}), low=1, high=1e5) == [90.5096]


def test_a_diverged_neighbour_is_approached() -> None:
    (lower, upper) = next_alphas(curve({32: 3, 128: 1, 512: None}), low=1, high=1e5)
    assert (lower, upper) == (64, 256)


def test_where_everything_diverged_it_looks_far_below() -> None:
    assert next_alphas(curve({32: None, 128: None}), low=1, high=1e5) == [8]


def test_nothing_tried_asks_for_nothing() -> None:
    assert next_alphas([], low=1, high=10) == []
