"""Small grids whose comparison was worked out by hand: every field, every threshold, both sides of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
from scipy import stats

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.equivalence import Equivalence, compare_routes, overall_verdict

Losses = dict[int, float | None]
CORNER: Losses = {0: 5.0, 1: 5.0, 2: 5.0}
# Quantiles of Student's t as a table prints them.
T_90_TWO, T_95_TWO = 2.91999, 4.30265


def grid(points: dict[tuple[float, float], Losses], **changes: object) -> list[Cell]:
    """Cells by (α, η), one loss a seed (None: diverged), in the opposite of their usual order."""
    runs = [
        RunOutcome("lora", 4, alpha, alpha / 4, lr, seed, "finished", loss, diverged=loss is None)
        for (alpha, lr), losses in points.items()
        for seed, loss in losses.items()
    ]
    return make_cells([dataclasses.replace(run, **changes) for run in runs])[::-1]


def compare(by_alpha: Sequence[float], by_lr: Sequence[float], **options: float) -> Equivalence:
    """The comparison of two routes that end, before their last point, at these losses of seeds 0, 1, …"""
    far = dict.fromkeys(range(len(by_alpha)), 9.0)
    points = {
        (8.0, 1e-3): far,
        (32.0, 1e-3): dict(enumerate(by_alpha)),
        (128.0, 1e-3): far,
        (8.0, 4e-3): dict(enumerate(by_lr)),
        (8.0, 16e-3): far,
    }
    (found,) = compare_routes(grid(points), **options)  # type: ignore[arg-type]
    return found


def test_a_comparison_by_hand() -> None:
    """Seeds 0 and 1 are on both routes: differences of -0.1 and -0.2 at a mean loss of 1.075."""
    points: dict[tuple[float, float], Losses] = {
        (8.0, 1e-3): CORNER,
        (32.0, 1e-3): {0: 0.9, 1: 1.1, 2: 0.8},
        (128.0, 1e-3): {0: None, 1: 2.0},
        (8.0, 4e-3): {0: 1.0, 1: 1.3, 3: 1.0},
        (8.0, 16e-3): {0: None, 1: None},
    }
    (found,) = compare_routes(grid(points))
    middle, half = -0.15 / 1.075, stats.t.ppf(0.975, 1) * 0.05 / 1.075
    expected = Equivalence(
        method="lora",
        rank=4,
        base_alpha=8.0,
        base_lr=1e-3,
        best_alpha=32.0,
        best_lr=4e-3,
        loss_alpha_route=pytest.approx(2.8 / 3),
        loss_lr_route=pytest.approx(1.1),
        diverged_alpha_route=1,
        diverged_lr_route=2,
        difference=pytest.approx(middle),
        low=pytest.approx(middle - half),
        high=pytest.approx(middle + half),
        margin=0.02,
        num_seeds=2,
        verdict="undecided",
        reason="-14.0% (95 % interval -73.1% to +45.1%): neither within ±2% nor clear of 0; add seeds",
    )
    assert found == expected


def test_only_adapters_of_one_learning_rate_are_compared_each_method_and_rank_alone() -> None:
    points = {(alpha, lr): CORNER for alpha in (8.0, 32.0) for lr in (1e-3, 4e-3)}
    lower = {(1.0, 1e-5): CORNER}
    cells = [
        *grid(points, method="rslora"),
        *grid(points, rank=2),
        *grid(points),
        *grid(lower, lr_ratio=16.0),
        *grid({(8.0, 1e-3): CORNER}, method="full", rank=None, alpha=None),
    ]
    found = compare_routes(cells)
    assert [(item.method, item.rank, item.base_lr) for item in found] == [
        ("lora", 2, 1e-3),
        ("lora", 4, 1e-3),
        ("rslora", 4, 1e-3),
    ]


@pytest.mark.parametrize(
    ("points", "best_alpha", "best_lr"),
    [
        ({(8.0, 1e-3): {0: None}, (32.0, 1e-3): {0: None}, (8.0, 4e-3): {0: 1.0}}, None, 4e-3),
        ({(8.0, 1e-3): {0: None}, (32.0, 1e-3): {0: 1.0}, (8.0, 4e-3): {0: None}}, 32.0, None),
        ({(8.0, 1e-3): {0: None}, (32.0, 1e-3): {0: None}, (8.0, 4e-3): {0: None}}, None, None),
    ],
)
def test_a_route_that_diverged_everywhere_is_no_side_of_a_comparison(
    points: dict[tuple[float, float], Losses], best_alpha: float | None, best_lr: float | None
) -> None:
    (found,) = compare_routes(grid(points))
    assert found.verdict == "not_enough_data"
    assert found.reason == "no cell of one of the routes finished without a divergence"
    assert (found.best_alpha, found.best_lr) == (best_alpha, best_lr)
    assert (found.loss_alpha_route, found.loss_lr_route) == (best_alpha and 1.0, best_lr and 1.0)
    assert (found.difference, found.low, found.high, found.num_seeds) == (None, None, None, 0)


@pytest.mark.parametrize(("share", "verdict"), [(1.01, "equivalent"), (0.99, "undecided")])
def test_equivalence_is_claimed_at_five_percent_a_side(share: float, verdict: str) -> None:
    """Three seeds that differ by -h, 0 and h: the 90 % interval ends at t·h/√3, on either side of it."""
    half = T_90_TWO * 0.01 / math.sqrt(3)
    assert compare((0.99, 1.0, 1.01), (1.0, 1.0, 1.0), margin=share * half).verdict == verdict


@pytest.mark.parametrize("shift", [-0.01, 0.01])
def test_both_ends_of_the_narrow_interval_must_lie_within_the_margin(shift: float) -> None:
    losses = [1 + shift - 0.01, 1 + shift, 1 + shift + 0.01]
    assert compare(losses, (1.0, 1.0, 1.0), margin=0.02).verdict == "undecided"
    assert compare(losses, (1.0, 1.0, 1.0), margin=0.028).verdict == "equivalent"


@pytest.mark.parametrize(("sign", "claim"), [(-1, "alpha_better"), (1, "lr_better")])
def test_a_difference_is_claimed_where_its_95_percent_interval_leaves_zero(sign: int, claim: str) -> None:
    for share, verdict in ((1.01, claim), (0.99, "undecided")):
        middle = 1 + sign * share * T_95_TWO * 0.01 / math.sqrt(3)
        losses = [middle - 0.01, middle, middle + 0.01]
        assert compare(losses, (1.0, 1.0, 1.0), margin=1e-6).verdict == verdict


def test_what_lies_exactly_on_a_limit_is_neither_within_nor_beyond_it() -> None:
    apart = compare((0.75, 0.75), (1.25, 1.25)).difference  # the same for both seeds: no width at all
    assert apart == -0.5
    assert compare((0.75, 0.75), (1.25, 1.25), margin=0.5).verdict == "alpha_better"
    assert compare((1.25, 1.25), (0.75, 0.75), margin=0.5).verdict == "lr_better"
    assert compare((1.0, 1.0), (1.0, 1.0), margin=0.0).verdict == "undecided"


def test_losses_that_average_to_zero_differ_in_their_own_unit() -> None:
    assert compare((-0.5, -0.5), (0.5, 0.5)).difference == -1.0


def test_the_reason_names_figures_and_the_end_of_the_grid() -> None:
    assert compare((1.01, 1.01), (1.0, 1.0)).reason == (
        "the α route's loss differs by +1.0% (95 % interval +1.0% to +1.0%): within ±2%"
    )
    points = {(8.0, 1e-3): CORNER, (32.0, 1e-3): {0: 0.75, 1: 0.75}, (8.0, 4e-3): {0: 1.25, 1: 1.25}}
    ended: dict[tuple[float, float], Losses] = {**points, (8.0, 16e-3): CORNER}
    (found,) = compare_routes(grid(ended))
    assert found.reason == (
        "the α route's loss is lower: -50.0% (95 % interval -50.0% to -50.0%)"
        "; the largest α measured is the best: extend the grid"
    )


def test_ranks_that_disagree_have_no_verdict_in_common() -> None:
    same, other = compare((1.0, 1.0), (1.0, 1.0)), compare((0.75, 0.75), (1.25, 1.25))
    assert overall_verdict([same, same]) == ("equivalent", [])
    assert overall_verdict([same, other, same]) == ("mixed", ["ranks disagree: alpha_better, equivalent"])
    assert overall_verdict([]) == ("not_enough_data", ["no cell of this sweep has a rank and an α"])
