from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.cells import RunOutcome, constant_alpha, make_cells
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.schedules import compare_schedules, schedules_verdict


def runs(schedule: str, losses: dict[float, list[float]], *, diverged: bool = False) -> list[RunOutcome]:
    """One run for each α and seed at rank 4."""
    return [
        RunOutcome(
            "lora", 4, alpha, alpha / 4, 1e-3, seed, "finished", loss, diverged, alpha_schedule=schedule
        )
        for alpha, row in losses.items()
        for seed, loss in enumerate(row)
    ]


CONSTANT = runs("constant", {8.0: [2.0, 2.1, 2.2], 16.0: [1.00, 1.10, 1.20], 32.0: [3.0, 3.1, 3.2]})


def test_runs_of_different_schedules_are_different_cells():
    cells = make_cells([*CONSTANT, *runs("ramp", {16.0: [9.0, 9.0, 9.0]})])
    assert [(cell.alpha_schedule, cell.alpha, cell.n) for cell in cells] == [
        ("constant", 8.0, 3),
        ("constant", 16.0, 3),
        ("constant", 32.0, 3),
        ("ramp", 16.0, 3),
    ]
    assert cells[1].mean == pytest.approx(1.1)
    assert constant_alpha(cells) == cells[:3]
    assert compare_routes(constant_alpha(cells))[0].best_alpha == 16.0


def test_each_side_takes_its_best_alpha_and_seeds_are_paired():
    better = runs("ramp", {8.0: [0.90, 1.01, 1.10], 16.0: [5.0, 5.0, 5.0]})
    (item,) = compare_schedules(make_cells([*CONSTANT, *better]))
    relative = (np.array([0.90, 1.01, 1.10]) - [1.0, 1.1, 1.2]) / np.mean([0.9, 1.01, 1.1, 1.0, 1.1, 1.2])
    half = stats.t.ppf(0.975, 2) * relative.std(ddof=1) / np.sqrt(3)
    assert (item.best_alpha, item.constant_alpha, item.num_alphas, item.num_seeds) == (8.0, 16.0, 2, 3)
    assert item.difference == pytest.approx(relative.mean())
    assert (item.low, item.high) == pytest.approx((relative.mean() - half, relative.mean() + half))
    assert item.verdict == "better"
    assert schedules_verdict([item]).startswith("Yes: 1 of 1")


def test_more_schedules_need_stronger_evidence():
    close = {8.0: [0.93, 1.01, 1.15]}
    alone = compare_schedules(make_cells([*CONSTANT, *runs("a", close)]))
    many = compare_schedules(
        make_cells([*CONSTANT, *(run for name in "abcdef" for run in runs(name, close))])
    )
    assert alone[0].difference == many[0].difference
    assert many[0].high > alone[0].high
    assert (alone[0].verdict, many[0].verdict) == ("better", "undecided")


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([1.3, 1.41, 1.5], "worse"),
        ([1.001, 1.099, 1.2], "equivalent"),
        ([0.5, 1.6, 1.2], "undecided"),
    ],
)
def test_the_verdict_can_be_no(losses, verdict):
    items = compare_schedules(make_cells([*CONSTANT, *runs("ramp", {16.0: losses})]))
    assert items[0].verdict == verdict
    assert schedules_verdict(items).startswith("No: of 1 comparisons none")


@pytest.mark.parametrize(("share", "verdict"), [(1.01, "equivalent"), (0.99, "undecided")])
def test_equivalence_is_claimed_at_five_percent_a_side(share: float, verdict: str) -> None:
    """Three seeds that differ by -0.01, 0 and 0.01: the 90 % interval ends at 2.91999 · 0.01/√3."""
    cells = make_cells([*runs("constant", {8.0: [1.0] * 3}), *runs("ramp", {8.0: [0.99, 1.0, 1.01]})])
    (item,) = compare_schedules(cells, margin=share * 2.91999 * 0.01 / np.sqrt(3))
    assert item.verdict == verdict


def test_what_cannot_be_compared_says_why():
    ramp = runs("ramp", {16.0: [1.0, 1.0, 1.0]})
    (alone,) = compare_schedules(make_cells(ramp))
    assert "no cell with constant α" in alone.reason
    (dead,) = compare_schedules(make_cells([*CONSTANT, *runs("ramp", {16.0: [1.0]}, diverged=True)]))
    assert "of this schedule finished without a divergence" in dead.reason
    assert dead.num_diverged == 1
    (single,) = compare_schedules(make_cells([*CONSTANT, *runs("ramp", {16.0: [1.0]})]))
    assert single.reason.startswith("1 seed in common")
    assert {item.verdict for item in (alone, dead, single)} == {"not_enough_data"}
    assert schedules_verdict([alone]).startswith("Not enough data")
    assert schedules_verdict([]) == "No run of this sweep moves α during training."
