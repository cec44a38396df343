from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.optimum import WITHIN_BASIN, Optimum, find_optima, find_optimum, jackknife_half_width


def cells_of(losses: dict[float, list[float | None]], *, rank: int = 4) -> list[Cell]:
    """Cells by α, one loss a seed; None is a diverged run."""
    return make_cells(
        RunOutcome("lora", rank, alpha, alpha / rank, 1e-3, seed, "finished", loss, loss is None)
        for alpha, values in losses.items()
        for seed, loss in enumerate(values)
    )


def test_optimum_is_the_vertex_of_the_parabola_through_three_cells() -> None:
    curve = {8.0: [0.9], 16.0: [0.5], 32.0: [0.42], 64.0: [0.6], 256.0: [2.0]}
    found = find_optimum(cells_of(curve))
    a, b, _ = np.polyfit(np.log2([16, 32, 64]), [0.5, 0.42, 0.6], 2)
    assert found is not None
    assert math.log2(found.value) == pytest.approx(-b / (2 * a), rel=1e-12)
    assert found.censored == ""
    assert found.low is None


def test_uneven_grids_have_the_same_vertex() -> None:
    def loss(alpha: float) -> float:
        return 1 + (math.log2(alpha) - 5.3) ** 2

    found = find_optimum(cells_of({alpha: [loss(alpha)] for alpha in (4.0, 24.0, 50.0, 512.0)}))
    assert found is not None
    assert math.log2(found.value) == pytest.approx(5.3, rel=1e-12)
    assert found.scale == pytest.approx(2**5.3 / 4)


@pytest.mark.parametrize(
    ("curve", "censored", "bounds"),
    [
        ({8: [1.0], 16: [2.0], 32: [3.0]}, "low_edge", (None, 16)),
        ({8: [3.0], 16: [2.0], 32: [1.0]}, "high_edge", (16, None)),
        ({8: [3.0], 16: [1.0], 32: [None]}, "cliff", (8, 32)),
        ({8: [3.0], 16: [1.0], 32: [2.0]}, "", (None, None)),
        # A cell of which one seed diverged is no candidate, however good its other seeds.
        ({8: [3.0, 3.0], 16: [1.0, 1.0], 32: [0.5, None]}, "cliff", (8, 32)),
    ],
)
def test_what_an_optimum_at_the_end_of_the_measured_is_called(
    curve: dict[float, list[float | None]], censored: str, bounds: tuple[float | None, float | None]
) -> None:
    found = find_optimum(cells_of({float(alpha): values for alpha, values in curve.items()}))
    assert found is not None
    assert found.censored == censored
    assert (found.bound_low, found.bound_high) == bounds


def test_all_diverged_is_no_optimum() -> None:
    assert find_optimum(cells_of({8.0: [None], 16.0: [None], 32.0: [None]})) is None


def test_interval_is_the_jackknife_of_whole_curves() -> None:
    rng = np.random.default_rng(5)
    grid = [8.0, 16.0, 32.0, 64.0, 128.0]
    table = np.array([[1 + (math.log2(a) - 5.2) ** 2 + rng.normal(0, 0.2) for a in grid] for _ in range(4)])
    found = find_optimum(cells_of({a: list(table[:, i]) for i, a in enumerate(grid)}))
    assert found is not None

    def vertex(rows: np.ndarray) -> float:
        y = rows.mean(axis=0)
        best = int(y.argmin())
        a, b, _ = np.polyfit(np.log2(grid[best - 1 : best + 2]), y[best - 1 : best + 2], 2)
        return float(-b / (2 * a))

    without = np.array([vertex(np.delete(table, seed, axis=0)) for seed in range(4)])
    half = stats.t.ppf(0.975, 3) * math.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
    assert found.low is not None
    assert found.high is not None
    assert math.log2(found.high / found.value) == pytest.approx(half, rel=1e-9)
    assert math.log2(found.value / found.low) == pytest.approx(half, rel=1e-9)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0, 11.0])
    without = [(values.sum() - value) / 4 for value in values]
    expected = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert jackknife_half_width(without) == pytest.approx(expected, rel=1e-12)
    assert jackknife_half_width(without[:1]) is None


def test_basin_is_where_interpolated_loss_stays_within_two_percent() -> None:
    found = find_optimum(cells_of({8.0: [1.2], 16.0: [1.01], 32.0: [1.0], 64.0: [1.04], 128.0: [2.0]}))
    assert found is not None
    fine = np.linspace(3, 7, 400_001)
    line = np.interp(fine, [3, 4, 5, 6, 7], [1.2, 1.01, 1.0, 1.04, 2.0])
    bow = np.polyval(np.polyfit([4, 5, 6], [1.01, 1.0, 1.04], 2), fine)
    inside = np.where((fine > 4) & (fine < 6), bow, line) <= 1.02
    assert math.log2(found.basin_low) == pytest.approx(fine[inside].min(), abs=1e-4)
    assert math.log2(found.basin_high) == pytest.approx(fine[inside].max(), abs=1e-4)
    assert not found.basin_open_low
    assert not found.basin_open_high


def test_the_same_cells_give_the_best_lr_at_each_alpha() -> None:
    runs = [
        RunOutcome("lora", 4, alpha, alpha / 4, lr, 0, "finished", 1 + (math.log2(lr * alpha) + 4) ** 2)
        for alpha in (8.0, 16.0, 32.0)
        for lr in (2.0**-10, 2.0**-9, 2.0**-8, 2.0**-7)
    ]
    found = {o.fixed: o.value for o in find_optima(make_cells(runs), target="lr") if not o.censored}
    assert found == {16.0: pytest.approx(2.0**-8), 32.0: pytest.approx(2.0**-9)}


def test_two_cells_are_no_question_of_where_the_best_lies() -> None:
    assert find_optima(cells_of({8.0: [1.0], 16.0: [2.0]})) == []


def test_the_optimum_lies_in_its_basin_however_steep_the_curve() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        y = rng.uniform(0.05, 3.0, 5)
        found = find_optimum(cells_of({2.0 ** (k + 3): [float(loss)] for k, loss in enumerate(y)}))
        assert found is not None
        assert found.basin_low <= found.value <= found.basin_high


def bowl(best: float, octaves: range) -> list[float]:
    return [1 + (k - best) ** 2 for k in octaves]


def test_an_optimum_by_hand() -> None:
    """Two seeds, each a parabola a quarter of an octave from 32: their mean is lowest at 32, by 1.0625."""
    first, second = bowl(5.25, range(3, 8)), bowl(4.75, range(3, 8))
    losses = {2.0**k: [first[k - 3], second[k - 3]] for k in range(3, 8)}
    cells = cells_of({**losses, 1024.0: [None, 9.0]})
    cells = [dataclasses.replace(cell, lr_ratio=2.0) for cell in reversed(cells)]
    error = stats.t.ppf(0.975, 1) * 0.25
    basin = math.sqrt(0.02 * 1.0625)
    expected = Optimum(
        method="lora",
        rank=4,
        lr=1e-3,
        alpha=None,
        lr_ratio=2.0,
        target="alpha",
        value=32.0,
        low=pytest.approx(2 ** (5 - error)),
        high=pytest.approx(2 ** (5 + error)),
        scale=8.0,
        basin_low=pytest.approx(2 ** (5 - basin)),
        basin_high=pytest.approx(2 ** (5 + basin)),
        basin_open_low=False,
        basin_open_high=False,
        basin_octaves=pytest.approx(2 * basin),
        loss=1.0625,
        censored="",
        bound_low=None,
        bound_high=None,
        num_seeds=2,
        num_diverged=1,
        per_seed_removed={0: pytest.approx(2**4.75), 1: pytest.approx(2**5.25)},
    )
    assert find_optimum(cells) == expected
    assert find_optima(cells) == [expected]


def test_an_optimum_over_lr_is_that_of_its_alpha() -> None:
    runs = [
        RunOutcome("lora", 4, 8.0, 2.0, 2.0**-k, 0, "finished", loss)
        for k, loss in zip(range(3, 8), bowl(5.0, range(3, 8)), strict=True)
    ]
    full = [RunOutcome("full", None, None, None, 2.0**-k, 0, "finished", 1.0) for k in range(3, 8)]
    (found,) = find_optima(make_cells([*full, *runs]), target="lr")
    assert (found.target, found.alpha, found.lr, found.value) == ("lr", 8.0, None, 2.0**-5)
    assert (found.fixed, found.scale) == (8.0, 2.0)


def test_three_cells_are_enough_to_ask() -> None:
    (found,) = find_optima(cells_of({8.0: [2.0], 16.0: [1.0], 32.0: [2.0]}))
    assert (found.value, found.target, found.fixed) == (16.0, "alpha", 1e-3)


def test_a_cliff_is_the_neighbours_not_the_far_ends() -> None:
    below = find_optimum(cells_of({8.0: [None], 16.0: [1.0], 32.0: [2.0], 64.0: [3.0]}))
    beyond = find_optimum(cells_of({8.0: [1.0], 16.0: [2.0], 32.0: [None]}))
    assert below is not None
    assert beyond is not None
    assert (below.censored, beyond.censored) == ("cliff", "low_edge")


def test_a_censored_optimum_has_no_interval_however_many_seeds() -> None:
    found = find_optimum(cells_of({8.0: [1.0, 1.1], 16.0: [2.0, 2.1], 32.0: [3.0, 3.1]}))
    assert found is not None
    assert (found.low, found.high, found.per_seed_removed) == (None, None, {})


def test_without_a_seed_the_best_may_lie_at_the_edge() -> None:
    found = find_optimum(cells_of({8.0: [0.0, 3.0], 16.0: [1.0, 1.0], 32.0: [3.0, 2.0]}))
    assert found is not None
    assert found.per_seed_removed == {0: pytest.approx(2 ** (4 + 1 / 6)), 1: 8.0}


def test_two_values_give_an_interval() -> None:
    assert jackknife_half_width([1.0, 3.0]) == pytest.approx(12.7062, rel=1e-5)


@pytest.mark.parametrize(
    ("curve", "basin", "is_open"),
    [
        # Off the low end; on the other side two octaves of loss rise by 1: 2 % after 0.04 octaves.
        ({8.0: 1.0, 32.0: 2.0, 128.0: 3.0}, (3.0, 3.04), (True, False)),
        ({8.0: 3.0, 32.0: 2.0, 128.0: 1.0}, (6.96, 7.0), (False, True)),
        # Past the neighbour, where the line to the next one passes 2 % half-way.
        ({8.0: 3.0, 16.0: 1.0, 32.0: 1.0, 64.0: 1.04}, (None, 5.5), (False, False)),
        # What costs 2 % exactly is still within, so nothing ends the basin.
        ({8.0: 1.02, 16.0: 1.0, 32.0: 1.02}, (3.0, 5.0), (True, True)),
        # Below α = 1, where log₂ α is negative: the parabola 2 + (k + 2)².
        ({0.125: 3.0, 0.25: 2.0, 0.5: 3.0}, (-2.2, -1.8), (False, False)),
    ],
)
def test_where_the_basin_ends(
    curve: dict[float, float], basin: tuple[float | None, float], is_open: tuple[bool, bool]
) -> None:
    found = find_optimum(cells_of({alpha: [loss] for alpha, loss in curve.items()}))
    assert found is not None
    assert (found.basin_open_low, found.basin_open_high) == is_open
    assert math.log2(found.basin_high) == pytest.approx(basin[1])
    if basin[0] is not None:
        assert math.log2(found.basin_low) == pytest.approx(basin[0])


def test_differences_too_small_for_a_curvature_leave_the_best_cell() -> None:
    found = find_optimum(cells_of({8.0: [5e-324], 32.0: [0.0], 128.0: [0.0]}))
    assert found is not None
    assert (found.value, found.basin_low, found.basin_high) == (32.0, 32.0, 128.0)


def test_the_basin_is_named_by_its_share() -> None:
    assert WITHIN_BASIN == "within 2 %"
