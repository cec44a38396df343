"""Optima of planted curves, what they are called at an end of what was measured, and their basins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.optimum import WITHIN_BASIN, Optimum, find_optima, find_optimum, locate
from lora_alpha.metrics import Metric

OCTAVES = np.arange(3.0, 11.0)


def cells_of(losses: dict[float, list[float | None]], *, rank: int = 4) -> list[Cell]:
    """Cells by α, one loss a seed; None is a diverged run."""
    return make_cells(
        RunOutcome("lora", rank, float(alpha), alpha / rank, 1e-3, seed, "finished", loss, loss is None)
        for alpha, values in losses.items()
        for seed, loss in enumerate(values)
    )


def bowl(
    best: float, *, noise: float = 0.004, octaves: np.ndarray = OCTAVES, curvature: float = 0.05
) -> list[Cell]:
    """Three seeds of 1 + curvature·z², z octaves from ``best``."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 0.01, 3)
    return cells_of(
        {
            2.0**x: [1 + curvature * (x - best) ** 2 + at + rng.normal(0, noise) for at in level]
            for x in octaves.tolist()
        }
    )


def found_in(cells: list[Cell]) -> Optimum:
    found = find_optimum(cells)
    assert found is not None
    assert found.basin_low <= found.value <= found.basin_high
    assert math.log2(found.basin_high / found.basin_low) == pytest.approx(found.basin_octaves)
    return found


@pytest.mark.parametrize(
    ("curve", "censored", "bounds"),
    [
        ({8: [1.0], 16: [2.0], 32: [3.0]}, "low_edge", (None, 16)),
        ({8: [3.0], 16: [2.0], 32: [1.0]}, "high_edge", (16, None)),
        ({8: [3.0], 16: [1.0], 32: [None]}, "cliff", (8, 32)),
        ({8: [None], 16: [1.0], 32: [2.0], 64: [3.0]}, "cliff", (8, 32)),
        ({8: [3.0], 16: [1.0], 32: [2.0]}, "", (None, None)),
        ({8: [1.0], 16: [2.0], 32: [None]}, "low_edge", (None, 16)),
        # A cell of which one seed diverged is no candidate, however good its other seeds.
        ({8: [3.0, 3.0], 16: [1.0, 1.0], 32: [0.5, None]}, "cliff", (8, 32)),
    ],
)
def test_what_an_optimum_at_the_end_of_the_measured_is_called(
    curve: dict[float, list[float | None]], censored: str, bounds: tuple[float | None, float | None]
) -> None:
    found = found_in(cells_of(curve))
    assert found.censored == censored
    assert (found.bound_low, found.bound_high) == bounds
    if found.at_edge:
        assert (found.low, found.high) == (None, None)
        assert found.value == (8 if censored == "low_edge" else 32)


def test_all_diverged_is_no_optimum() -> None:
    assert find_optimum(cells_of({8: [None], 16: [None], 32: [None]})) is None


def test_two_cells_are_no_question_of_where_the_best_lies_and_three_are() -> None:
    assert find_optima(cells_of({8: [1.0], 16: [2.0]})) == []
    (found,) = find_optima(cells_of({8: [2.0], 16: [1.0], 32: [2.0]}))
    assert (found.target, found.fixed, found.censored) == ("alpha", 1e-3, "")
    assert 8 < found.value < 32


def test_fewer_than_three_measured_cells_leave_the_best_without_an_interval() -> None:
    cells = cells_of({8: [3.0], 16: [1.0], 32: [None]})
    found = found_in(cells)
    assert (found.value, found.low, found.high) == (16, None, None)
    assert (found.basin_low, found.basin_high) == (16, 16)
    assert (found.basin_open_low, found.basin_open_high) == (True, True)
    assert locate([cells])[0].draws is None


def test_an_optimum_and_what_is_known_of_it() -> None:
    cells = [dataclasses.replace(cell, lr_ratio=2.0) for cell in reversed(bowl(6.3))]
    (found,) = find_optima(cells)
    assert found == find_optimum(cells)
    assert (found.method, found.rank, found.lr, found.alpha) == ("lora", 4, 1e-3, None)
    assert (found.lr_ratio, found.target, found.num_seeds, found.num_diverged) == (2.0, "alpha", 3, 0)
    assert (found.censored, found.bound_low, found.bound_high) == ("", None, None)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 2**6.3 < found.high < 1.5 * found.low
    assert found.scale == pytest.approx(found.value / 4)
    assert found.loss == min(cell.mean for cell in cells if cell.mean is not None)


def test_the_basin_is_where_the_loss_stays_within_two_percent_of_the_lowest() -> None:
    found = found_in(bowl(6.3))
    half = math.sqrt(0.02 / 0.05)
    assert math.log2(found.basin_low) == pytest.approx(6.3 - half, abs=0.1)
    assert math.log2(found.basin_high) == pytest.approx(6.3 + half, abs=0.1)
    assert not found.basin_open_low
    assert not found.basin_open_high
    assert found.basin_low_from is not None
    assert found.basin_low_to is not None
    assert found.basin_high_from is not None
    assert found.basin_high_to is not None
    assert found.basin_low_from < 2 ** (6.3 - half) < found.basin_low_to
    assert found.basin_high_from < 2 ** (6.3 + half) < found.basin_high_to
    assert WITHIN_BASIN == "within 2 %"


def test_a_basin_that_the_grid_cuts_is_open_there() -> None:
    found = found_in(bowl(6.0, octaves=np.arange(3.0, 8.0), curvature=0.01))
    assert (found.basin_open_low, found.basin_open_high) == (False, True)
    assert (found.basin_high_from, found.basin_high_to) == (None, None)
    assert found.basin_high == 2.0**7
    mirrored = found_in(bowl(4.0, octaves=np.arange(3.0, 8.0), curvature=0.01))
    assert (mirrored.basin_open_low, mirrored.basin_open_high) == (True, False)
    assert (mirrored.basin_low_from, mirrored.basin_low_to) == (None, None)


@pytest.mark.parametrize("seed", range(2))
def test_the_optimum_lies_in_its_basin_however_rough_the_curve(seed: int) -> None:
    y = np.random.default_rng(seed).uniform(0.05, 3.0, 5)
    found_in(cells_of({2.0 ** (k + 3): [float(loss)] for k, loss in enumerate(y)}))


def test_an_optimum_below_a_cliff_is_inside_its_interval() -> None:
    """Everything half an octave above the optimum diverges."""
    cells = [
        dataclasses.replace(cell, mean=None, losses={}, n=0, num_diverged=3)
        if cell.alpha and cell.alpha > 2**6.8
        else cell
        for cell in bowl(6.3, noise=0.01)
    ]
    found = found_in(cells)
    assert found.censored == "cliff"
    assert (found.bound_low, found.bound_high) == (2.0**5, 2.0**7)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 2**6.3 <= found.high <= 2**7
    assert found.num_diverged == 12


def test_highest_accuracy_is_where_its_negative_is_lowest() -> None:
    runs = [
        RunOutcome(
            "lora", 4, cell.alpha, cell.scale, cell.lr, seed, "finished", sign * (loss - 1.0)
        )
        for sign in (1.0, -1.0)
        for cell in bowl(6.3)
        for seed, loss in cell.losses.items()
    ]  # fmt: skip
    low, high = runs[: len(runs) // 2], runs[len(runs) // 2 :]
    as_loss = found_in(make_cells(low, metric=Metric("cost", "min", "", has_zero=False)))
    as_accuracy = found_in(make_cells(high, metric=Metric("accuracy", "max", "", has_zero=True)))
    assert as_accuracy == dataclasses.replace(as_loss, loss=-as_loss.loss)


def test_the_same_cells_give_the_best_lr_at_each_alpha() -> None:
    runs = [
        RunOutcome("lora", 4, alpha, alpha / 4, 2.0**k, 0, "finished", 1 + (k + math.log2(alpha) + 4.7) ** 2)
        for alpha in (8.0, 16.0)
        for k in range(-13, -4)
    ]
    full = [RunOutcome("full", None, None, None, 2.0**-k, 0, "finished", 1.0) for k in range(3, 8)]
    found = find_optima(make_cells([*full, *runs]), target="lr")
    assert [(item.fixed, item.alpha, item.lr, item.target) for item in found] == [
        (8.0, 8.0, None, "lr"),
        (16.0, 16.0, None, "lr"),
    ]
    assert [math.log2(item.value) for item in found] == pytest.approx([-7.7, -8.7], abs=0.03)
    assert [item.scale for item in found] == [2.0, 4.0]


@pytest.mark.parametrize("shape", [np.square, np.abs], ids=["parabola", "kink"])
def test_uneven_grids_have_the_same_optimum(shape: Callable[[np.ndarray], np.ndarray]) -> None:
    octaves = np.array([2.0, 3.4, 4.6, 5.1, 6.2, 7.9, 9.0])
    losses = 1 + shape(octaves - 5.4)
    found = found_in(cells_of({2.0**x: [y] for x, y in zip(octaves.tolist(), losses.tolist(), strict=True)}))
    assert math.log2(found.value) == pytest.approx(5.4, abs=0.2)
