from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.compared import compare, judge
from lora_alpha.analysis.intervals import Difference, paired_difference, seeds_for, t_quantile
from lora_alpha.analysis.route import find_minima, take_route, weighted_costs
from tests.lora_alpha.analysis.planted_routes import ALPHA, LR, Planted


def test_a_paired_difference_alone_is_the_paired_t_test() -> None:
    values = [0.3, -0.1, 0.5, 0.2]
    found = paired_difference(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.interval() == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.freedom) == (pytest.approx(0.225), 3)


def test_other_comparisons_steady_the_variance_with_four_degrees_of_freedom_at_most() -> None:
    own, other = [0.0, 2.0, 1.0], [0.0, 6.0]
    few = paired_difference(own, [other, [5.0]])
    assert few.freedom == 3
    assert few.error == pytest.approx(np.sqrt((2 + 18) / 3 / 3))
    many = paired_difference(own, [other] * 9)
    assert many.freedom == 6
    assert many.error == pytest.approx(np.sqrt((2 + 4 * 18) / 6 / 3))


@pytest.mark.parametrize(("tolerance", "outcome"), [(1.01, "same"), (0.99, "open")])
def test_sameness_is_claimed_at_five_percent_a_side(tolerance: float, outcome: str) -> None:
    half = t_quantile(0.95, 2)
    assert judge(Difference(0.0, 1.0, 2), tolerance=tolerance * half, tail=0.01) == outcome
    shifted = Difference(0.5, 1.0, 2)
    assert judge(shifted, tolerance=half + 0.5 * tolerance, tail=0.01) == outcome


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_open_fall_moves_the_end_that_it_belongs_to(sign: int) -> None:
    open_low = Difference(0.0, 1.0, 5, fall_low=2.0)
    low, high = open_low.interval()
    assert low + high == pytest.approx(-2.0)
    lower = Difference(sign * 9.0, 1.0, 30, fall_low=0.0 if sign < 0 else 20.0)
    assert judge(lower, tolerance=0.1, tail=0.01) == ("lower" if sign < 0 else "open")


def test_a_route_that_may_fall_further_may_be_lower_than_the_other() -> None:
    planted = Planted()
    cells = planted.cells(planted.grid())
    routes = [
        take_route([cell for cell in cells if cell.lr == LR], "alpha", base=ALPHA),
        take_route([cell for cell in cells if cell.alpha == ALPHA], "lr", base=LR),
    ]
    first, second = find_minima(routes)
    low, high = compare(first, second).difference().interval()
    falling = compare(dataclasses.replace(first, fall=2.0), dataclasses.replace(second, fall=0.5))
    assert falling.difference().interval() == pytest.approx((low - 2.0, high + 0.5))


def test_a_difference_up_to_the_tolerance_is_no_winner_however_sure_it_is() -> None:
    for mean, outcome in ((1.02, "higher"), (0.98, "open"), (-0.98, "open"), (-1.02, "lower")):
        assert judge(Difference(mean, 0.1, 30), tolerance=1.0, tail=0.01) == outcome


def test_seeds_for_is_the_first_number_whose_half_width_fits() -> None:
    difference = Difference(0.0, 0.25, 2)
    found = seeds_for(0.2, difference, num_seeds=3, tail=0.01, most=40)
    assert found is not None

    def half(n: int) -> float:
        return float(stats.t.ppf(0.99, n - 1) * 0.25 * np.sqrt(3 / n))

    assert half(found) < 0.2 <= half(found - 1)
    assert seeds_for(0.2, difference, num_seeds=3, tail=0.01, most=found - 1) is None


def test_a_missing_run_is_what_cells_and_seeds_add_up_to() -> None:
    levels, effects = {0: 1.0, 1: 4.0, 2: 2.0}, {5: 0.0, 6: 0.5, 7: -0.25}
    full = {cell: {seed: a + b for seed, b in effects.items()} for cell, a in levels.items()}
    weights = {0: 0.5, 1: 0.3, 2: 0.2}
    expected = weighted_costs(full, weights)
    assert expected == pytest.approx({seed: 2.1 + b for seed, b in effects.items()})
    partial = {cell: {s: v for s, v in of.items() if (cell, s) != (1, 6)} for cell, of in full.items()}
    assert weighted_costs(partial, weights) == pytest.approx(expected)
