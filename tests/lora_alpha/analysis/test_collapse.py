"""Which coordinate decides the loss, and when the data cannot say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lora_alpha.analysis.collapse import COORDINATES
from lora_alpha.analysis.collapse_verdict import find_collapse, overall_collapse
from lora_alpha.metrics import Metric
from tests.lora_alpha.analysis.planted_collapse import Exponents, planted, straight, verdict_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("name", "exponents"), COORDINATES.items())
def test_the_coordinate_that_decides_the_loss_wins_whatever_the_floors(
    name: str, exponents: Exponents
) -> None:
    fit, scores = verdict_of(planted(rng(), exponents, floors=1.0))
    assert fit.verdict == name == scores[0].coordinate
    assert f"{name} decides the loss" in fit.sentence
    assert (scores[0].score or 0) > 0.98
    assert all((score.behind_low or 0) > 0 for score in scores[1:])
    assert scores[0].compatible
    for point in scores[0].points:
        a, b, c = exponents
        assert point.x == pytest.approx(point.alpha**a * point.lr**b * point.rank**c)


def test_points_without_floors_lie_on_one_line() -> None:
    _, scores = verdict_of(planted(rng(), noise=1e-4, floors=1.0))
    points = sorted(scores[0].points, key=lambda point: point.x)
    steps = np.diff([point.level or 0 for point in points])[np.diff([point.x for point in points]) < 1e-9]
    assert len(steps) > 20
    assert np.abs(steps).max() < 0.02
    assert np.ptp([point.loss - (point.level or 0) for point in points]) > 0.5


@pytest.mark.parametrize(
    ("grid", "verdict", "why", "open_letters"),
    [
        ({"ranks": (4,), "num_lrs": 5}, {"η·α", "η·α/r", "η·α/√r"}, "one rank", "r"),
        ({"num_lrs": 1}, {"η·α/√r", "η·α²/r"}, "one learning rate", "η"),
        ({"ranks": (4,), "num_lrs": 1}, set(COORDINATES), "one curve", "α, r and η"),
    ],
)
def test_coordinates_that_the_grid_cannot_tell_apart_are_named_together(
    grid: dict[str, Any], verdict: set[str], why: str, open_letters: str
) -> None:
    fit, scores = verdict_of(planted(rng(), **grid))
    assert set(fit.verdict.split(" or ")) == verdict
    assert f"cannot be told apart: {why}" in fit.sentence
    assert f"ot identified: the exponent of {open_letters}." in fit.sentence
    assert {scores[0].coordinate, *scores[0].alike} == verdict


def test_a_straight_line_leaves_the_rank_to_the_floors() -> None:
    fit, _ = verdict_of(planted(rng(), curve=straight))
    assert set(fit.verdict.split(" or ")) == {"η·α", "η·α/r", "η·α/√r"}
    assert fit.rank is None
    assert fit.alpha is not None
    assert fit.alpha.low < 1 < fit.alpha.high
    assert "Not identified: the exponent of r" in fit.sentence


def test_noise_that_hides_a_fifth_does_not_hide_the_collapse() -> None:
    fit, scores = verdict_of(planted(rng(1), noise=0.4, num_seeds=3, num_lrs=5))
    assert fit.ceiling is not None
    assert (scores[0].score or 0) < 0.9
    assert fit.ceiling == pytest.approx(scores[0].score, abs=0.05)
    assert "η·α/√r" in fit.verdict.split(" or ")
    assert f"the noise of seeds allows {100 * fit.ceiling:.1f} %" in fit.sentence


def test_curves_that_share_no_coordinate_have_none() -> None:
    fit, scores = verdict_of(planted(rng(2), shift=4.0))
    assert fit.verdict == "none"
    assert fit.sentence.startswith("lora: No coordinate decides the loss")
    assert (scores[0].score or 0) < 0.9


@pytest.mark.parametrize(("times", "plus"), [(1.0, -9.0), (1e-3, 1.0), (-1.0, 1.0)])
def test_zero_unit_and_direction_of_the_metric_change_nothing(times: float, plus: float) -> None:
    goal = "max" if times < 0 else "min"
    first, scores = verdict_of(planted(rng()))
    fit, again = verdict_of(planted(rng(), times=times, plus=plus, metric=Metric("m", goal)))
    assert fit.verdict == first.verdict
    assert again[0].score == pytest.approx(scores[0].score, abs=1e-6)
    assert fit.alpha is not None
    assert first.alpha is not None
    assert fit.alpha.value == pytest.approx(first.alpha.value, abs=1e-4)
    # Levels are in the metric's own unit.
    levels = [times * ((point.level or 0) - 1.0 + plus) for point in scores[0].points]
    assert [point.level for point in again[0].points] == pytest.approx(levels, abs=1e-5)


def test_diverged_cells_are_counted_and_no_points() -> None:
    cells = planted(rng(), diverged_above=3.5)
    fit, scores = verdict_of(cells)
    gone = sum(not cell.measured for cell in cells)
    assert fit.num_diverged == gone > 5
    assert len(scores[0].points) == len(cells) - gone
    assert f"{gone} diverged cells left out" in fit.sentence
    assert fit.verdict == "η·α/√r"


def test_a_wall_in_front_of_the_cliff_does_not_drown_the_rest() -> None:
    fit, _ = verdict_of(planted(rng(), curve=lambda u: 0.03 * u * u + (1e3 if u > 4 else 0)))
    assert fit.verdict == "η·α/√r"


def test_missing_runs_do_not_move_a_cell() -> None:
    fit, _ = verdict_of(planted(rng(), missing=0.15))
    assert fit.verdict == "η·α/√r"


@pytest.mark.parametrize("seeds", [1, 3])
def test_too_few_cells_or_no_difference_say_why(seeds: int) -> None:
    fit, scores = verdict_of(planted(rng(), ranks=(4,), num_lrs=1, num_alphas=4, num_seeds=seeds))
    assert fit.verdict == "not_enough_data"
    assert "4 measured cells are too few" in fit.sentence
    assert all(score.score is None for score in scores)
    flat, _ = verdict_of(planted(rng(), curve=lambda _: 0.0, noise=0.0, num_seeds=seeds))
    assert flat.verdict == "undecided"
    assert "no coordinate can be read off" in flat.sentence


def test_one_seed_has_no_ceiling_and_says_so() -> None:
    fit, _ = verdict_of(planted(rng(), num_seeds=1))
    assert fit.ceiling is None
    assert "one seed: how much noise allows is not known" in fit.sentence
    assert fit.verdict == "η·α/√r"


def test_a_coordinate_halfway_is_fitted_and_its_neighbours_share_the_name() -> None:
    fit, scores = verdict_of(planted(rng(), (1.0, 1.0, -0.25), noise=0.05))
    assert fit.rank is not None
    assert fit.rank.low < -0.25 < fit.rank.high
    assert not any(score.compatible for score in scores)
    assert "no named coordinate is compatible" in fit.sentence
    assert fit.fitted is not None
    assert (fit.fitted.score or 0) > (scores[0].score or 1)
    assert fit.fitted.coordinate.startswith("η·α")


def test_sweeps_of_two_lr_ratios_are_two_verdicts() -> None:
    cells = planted(rng())
    other = [replace(cell, lr_ratio=16.0) for cell in planted(rng(), (0.5, 1.0, 0.0))]
    fits = [fit for fit, _ in find_collapse([*cells, *other], method="lora")]
    assert [(fit.lr_ratio, fit.verdict) for fit in fits] == [(1.0, "η·α/√r"), (16.0, "η·√α")]
    assert overall_collapse(fits) == "mixed"
    assert overall_collapse([]) == "not_enough_data"
