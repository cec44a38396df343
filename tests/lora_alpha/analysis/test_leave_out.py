"""Sums without some runs give what a fit of the other runs gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from lora_alpha.analysis.collapse_fit import fit_curve
from lora_alpha.analysis.collapse_runs import gather_runs
from lora_alpha.analysis.curve_basis import Array, spline_basis
from lora_alpha.analysis.leave_out import LeftOut, Sums, effective_freedom, left_out, sums
from tests.lora_alpha.analysis.planted_collapse import planted


def test_the_basis_is_scipys_and_its_slopes_are_its_derivatives() -> None:
    x = np.linspace(-1.0, 3.0, 23)
    values, slopes = spline_basis(x, 5)
    knots = -1 + 0.8 * np.arange(-3, 9)
    spline = BSpline(knots, np.eye(8), 3)
    assert values == pytest.approx(spline(x), abs=1e-12)
    assert slopes == pytest.approx(spline.derivative()(x), abs=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_leaving_out_is_fitting_the_rest(missing: float) -> None:
    runs = gather_runs(planted(np.random.default_rng(0), ranks=(4, 16), num_lrs=2, missing=missing))
    fit = fit_curve(runs, np.array([1.0, 1.0, -0.5]), 0.1)

    def by_hand(costs: Array) -> Array:
        there = ~np.isnan(costs)
        design, y = fit.design[np.nonzero(there)[0]], costs[there]
        return np.asarray(np.linalg.solve(design.T @ design + fit.penalty, design.T @ y))

    def coefficients(left: Sums) -> Array:
        return left.solved(fit.penalty)

    found = left_out(sums(runs, fit.design), coefficients)
    for cluster in range(runs.num_clusters):
        costs = np.where((runs.cluster == cluster)[:, None], np.nan, runs.costs)
        assert found.clusters[cluster] == pytest.approx(by_hand(costs), abs=1e-7)
    for seed in range(3):
        costs = np.where(np.arange(3) == seed, np.nan, runs.costs)
        assert found.seeds[seed] == pytest.approx(by_hand(costs), abs=1e-7)
    both = (runs.cluster == 1)[:, None] & (np.arange(3) == 2)
    assert found.both[2 * runs.num_clusters + 1] == pytest.approx(
        by_hand(np.where(both, np.nan, runs.costs)), abs=1e-7
    )


def test_the_error_of_a_mean_is_the_textbooks() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    without = (values.sum() - values) / 3
    left = LeftOut(without[:, None], np.zeros((1, 1)), np.zeros((1, 1)))
    error, freedom = left.error(np.ones((4, 1)))
    assert error == pytest.approx(values.std(ddof=1) / 2)
    assert freedom == pytest.approx(3)


def test_clusters_that_count_unequally_have_fewer_degrees_of_freedom() -> None:
    assert effective_freedom(np.array([4.0, 1.0, 1.0, 1.0])) < effective_freedom(np.ones(4)) == 3
