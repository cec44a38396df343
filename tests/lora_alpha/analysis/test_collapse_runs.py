"""What is done to costs before a coordinate has to explain them."""

from __future__ import annotations

import numpy as np
import pytest

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.collapse_runs import Runs, gather_runs
from tests.lora_alpha.analysis.planted_collapse import planted

LEVELS = (0.0, 0.5, -0.2)  # what each seed adds


def runs_of(
    *, without: frozenset[tuple[int, int]] = frozenset(), wall: float = 0.0, noise: float = 0.0
) -> Runs:
    rng = np.random.default_rng(0)
    outcomes = [
        RunOutcome("lora", rank, 2.0**k, 1.0, 1e-3, seed, "finished", loss)
        for rank in (4, 16)
        for k in range(8)
        for seed, level in enumerate(LEVELS)
        if (k, seed) not in without
        for loss in [1 + 0.1 * (k - 3) ** 2 + level + noise * rng.normal() + wall * (k == 7)]
    ]
    return gather_runs(make_cells(outcomes))


def test_a_seed_that_a_cell_lacks_makes_it_neither_better_nor_worse() -> None:
    whole, some = runs_of(), runs_of(without=frozenset({(0, 1), (3, 2), (5, 1)}))
    assert np.ptp(some.means - whole.means) < 1e-12
    assert some.noise == pytest.approx(0, abs=1e-20)
    assert some.weights.tolist().count(2) == 6


def test_noise_is_that_of_runs_about_cell_and_seed() -> None:
    cells = planted(np.random.default_rng(3), noise=0.1, ranks=(1, 4, 16, 64))
    runs = gather_runs(cells)
    assert runs.noise_freedom == 4 * (24 - 1) * 2
    assert runs.noise == pytest.approx(0.01, rel=0.25)
    assert runs.ceiling == pytest.approx(1 - (runs.noise or 0) / runs.variance)


def test_a_wall_is_lowered_to_the_fence_and_nothing_else_is_moved() -> None:
    plain, walled = runs_of(), runs_of(wall=1e6)
    same = plain.means < plain.means.max() - 1e-9
    assert np.ptp((walled.means - plain.means)[same]) < 1e-9
    assert walled.means.max() < plain.means.max() + 3
    assert walled.means.max() > plain.means.max()
