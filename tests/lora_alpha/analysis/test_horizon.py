"""p and C against the step, on planted surfaces whose exponent moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.horizon import (
    MAX_STEPS,
    Training,
    _change,
    _Reading,
    laws_over_horizon,
    no_horizon_reasons,
    recorded_before,
    spread_steps,
)
from lora_alpha.training.schedules import lr_factor

CONSTANT = Training("constant", warmup=0, steps=80)
STEPS = (10, 20, 40, 80)
RANKS = (1, 4, 16, 64)


def cells(p: float, c: float = 64.0, *, noise: float = 0.01, reached: int = len(RANKS)) -> list[Cell]:
    """Lowest at α = c·r^p on an octave grid, three seeds; ranks after the ``reached`` first are pending."""
    rng = np.random.default_rng(0)
    return make_cells(
        RunOutcome(
            "lora", rank, alpha, alpha / rank, 1e-3, seed,
            "finished" if place < reached else "pending",
            2 + 0.05 * float(np.log2(alpha / (c * rank**p))) ** 2 + noise * rng.normal()
            if place < reached else None,
        )
        for place, rank in enumerate(RANKS)
        for alpha in (2.0**k for k in range(3, 14))
        for seed in range(3)
    )  # fmt: skip


def planted(p: Callable[[int], float], *, noise: float = 0.01) -> dict[int, list[Cell]]:
    return {step: cells(p(step), noise=noise) for step in STEPS}


def test_planted_exponents_and_coefficients_come_back_at_each_step() -> None:
    truth = {10: (0.1, 400.0), 20: (0.4, 200.0), 40: (0.6, 100.0), 80: (0.8, 50.0)}
    at = {step: cells(p, c) for step, (p, c) in truth.items()}
    (horizon,) = laws_over_horizon(at, CONSTANT)
    assert [point.step for point in horizon.points] == list(STEPS)
    for point in horizon.points:
        p, c = truth[point.step]
        assert point.exponent == pytest.approx(p, abs=0.05)
        assert point.coefficient == pytest.approx(c, rel=0.15)
        assert point.exponent_low is not None
        assert point.exponent_high is not None
        assert point.exponent_low < point.exponent < point.exponent_high
        assert (point.num_ranks, point.num_seeds, point.num_pending) == (4, 3, 0)
        assert (point.decaying, point.warming) == (False, False)
    assert horizon.trend == "rises"
    assert (horizon.crosses_from, horizon.crosses_to) == (20, 40)
    assert "p rises with training" in horizon.verdict
    assert "√r is a crossing here" in horizon.verdict
    assert "At step 80 p = 1/2 lies outside" in horizon.verdict
    assert "4 ranks, 3 seeds, constant η; of longer runs it says nothing" in horizon.verdict


@pytest.mark.parametrize(
    ("first", "last", "noise", "trend", "said"),
    [
        (0.9, 0.2, 0.01, "falls", "p falls with training"),
        (0.5, 0.5, 0.002, "flat", "p stays as it is within ±0.1"),
        (0.5, 0.55, 0.2, "undecided", "Whether p changes is not decided"),
    ],
)
def test_what_p_does_is_said_with_both_ends(
    first: float, last: float, noise: float, trend: str, said: str
) -> None:
    at = planted(lambda step: first + (last - first) * (step - 10) / 70, noise=noise)
    (horizon,) = laws_over_horizon(at, CONSTANT)
    assert horizon.trend == trend
    assert said in horizon.verdict
    assert "at step 10" in horizon.verdict
    ends = [horizon.points[0].exponent, horizon.points[-1].exponent]
    assert horizon.change == pytest.approx((ends[1] or 0) - (ends[0] or 0))
    assert horizon.change_low is not None
    assert horizon.change_high is not None
    assert horizon.change_low <= last - first <= horizon.change_high
    assert ("is a crossing" in horizon.verdict) == (trend == "falls")
    inside = horizon.points[-1].exponent_low <= 0.5 <= horizon.points[-1].exponent_high  # type: ignore[operator]
    assert f"p = 1/2 lies {'inside' if inside else 'outside'} the interval" in horizon.verdict


def test_a_crossing_needs_whole_intervals_on_both_sides_of_one_half() -> None:
    (horizon,) = laws_over_horizon(planted(lambda step: 0.49 + step / 4000, noise=0.05), CONSTANT)
    assert horizon.crosses_from is None
    assert "crossing" not in horizon.verdict


def test_the_interval_of_the_change_covers_and_is_wider_for_readings_of_the_same_runs() -> None:
    rng = np.random.default_rng(1)
    covered = {}
    for correlation in (0.0, 0.8):
        z = rng.normal(size=(4000, 2)) @ np.linalg.cholesky([[1, correlation], [correlation, 1]]).T
        first, last = 0.2 + 0.05 * z[:, 0], 0.6 + 0.1 * z[:, 1]
        found = [
            _change(_Reading(1, a, a - 0.098, a + 0.098), _Reading(2, b, b - 0.196, b + 0.196))
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
        ]
        covered[correlation] = np.mean([low <= 0.4 <= high for _, low, high in found])
    assert covered[0.0] == pytest.approx(0.95, abs=0.015)
    assert covered[0.8] > 0.97


def test_the_interval_of_the_change_takes_the_ends_that_matter() -> None:
    change = _change(_Reading(1, 0.2, 0.1, 0.5), _Reading(2, 0.7, 0.3, 0.8))
    assert change == pytest.approx((0.5, 0.0, 0.5 + 0.1 * 2**0.5))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_a_point_is_a_law_of_shorter_runs_where_they_would_have_had_the_same_rates(
    schedule: str, warmup: int
) -> None:
    whole = 12

    def rates(step: int, of: int) -> list[float]:
        return [lr_factor(k, schedule=schedule, steps=of, warmup=warmup) for k in range(step)]  # type: ignore[arg-type]

    training = Training(schedule, warmup=warmup, steps=whole)
    for step in range(1, whole + 1):
        assert training.decaying(step) == (rates(step, whole) != rates(step, step)), step
        assert training.warming(step) == (step <= warmup)


def test_a_decaying_schedule_says_why_its_points_are_no_laws_of_shorter_runs() -> None:
    training = Training("cosine", warmup=0, steps=80)
    (horizon,) = laws_over_horizon(planted(lambda _: 0.5), training)
    assert [point.decaying for point in horizon.points] == [True, True, True, False]
    (told,) = training.conditions(STEPS)
    assert "η decays (cosine)" in told
    assert "no laws of shorter runs" in told
    assert "cosine η, read along runs of 80 steps" in horizon.verdict
    assert CONSTANT.conditions(STEPS) == []


def test_a_schedule_that_was_not_recorded_is_not_taken_for_a_constant_one() -> None:
    training = Training(None, warmup=0, steps=80)
    (horizon,) = laws_over_horizon(planted(lambda _: 0.5), training)
    assert [point.decaying for point in horizon.points] == [None, None, None, False]
    assert "only if it was constant" in training.conditions(STEPS)[0]
    assert "schedule unknown" in horizon.verdict


def test_points_of_the_warm_up_are_shown_but_nothing_is_concluded_from_them() -> None:
    training = Training("constant", warmup=10, steps=80)
    (horizon,) = laws_over_horizon(planted(lambda step: 0.0 if step == 10 else 0.8), training)
    assert [point.warming for point in horizon.points] == [True, False, False, False]
    assert horizon.points[0].exponent == pytest.approx(0.0, abs=0.05)
    assert horizon.trend != "rises"
    assert horizon.crosses_from is None
    assert "first 10 steps" in training.conditions(STEPS)[0]


def test_a_live_sweep_shows_the_horizon_that_it_has() -> None:
    at = {10: cells(0.2), 20: cells(0.6, reached=3), 40: cells(0.8, reached=2)}
    (horizon,) = laws_over_horizon(at, CONSTANT)
    assert [point.num_pending for point in horizon.points] == [0, 33, 2 * 33]
    assert horizon.points[1].num_ranks == 3
    assert horizon.points[2].exponent is None
    assert horizon.points[2].reasons
    assert "at step 20" in horizon.verdict
    assert no_horizon_reasons(at, [horizon], target="alpha") == []


def test_what_is_missing_is_said_in_words() -> None:
    assert "no step is recorded" in no_horizon_reasons({}, [], target="alpha")[0]
    one = {10: cells(0.5)}
    horizons = laws_over_horizon(one, CONSTANT)
    assert "1 step is recorded" in no_horizon_reasons(one, horizons, target="alpha")[0]
    assert "at step 10; no law at any other step" in horizons[0].verdict
    pending = {step: cells(0.5, reached=0) for step in STEPS}
    assert laws_over_horizon(pending, CONSTANT) == []
    assert no_horizon_reasons(pending, [], target="alpha") == ["no cell of this sweep has finished yet"]
    two_ranks = {step: cells(0.5, reached=2) for step in STEPS}
    (horizon,) = laws_over_horizon(two_ranks, CONSTANT)
    assert horizon.verdict.startswith("No law at any of 4 steps; at step 80: 2 ranks")


def test_a_law_of_lr_says_nothing_of_one_half() -> None:
    turned = {
        step: [
            dataclasses.replace(cell, alpha=64.0, lr=(cell.alpha or 0) * 1e-5) for cell in cells(step / 100)
        ]
        for step in STEPS
    }
    (horizon,) = laws_over_horizon(turned, CONSTANT, target="lr")
    assert (horizon.lr, horizon.alpha, horizon.trend) == (None, 64.0, "rises")
    assert horizon.crosses_from is None
    assert "1/2" not in horizon.verdict
    assert "α = 64" in horizon.verdict


@pytest.mark.parametrize("recorded", [range(0, 601, 25), range(10_001), [7], [], [0], [3, 1_000_000]])
def test_steps_are_recorded_ones_few_and_keep_both_ends(recorded: list[int]) -> None:
    chosen = spread_steps(recorded)
    after = sorted(set(recorded) - {0})
    assert len(chosen) <= MAX_STEPS
    assert chosen == sorted(set(chosen) & set(after))
    assert chosen[:1] == after[:1]
    assert chosen[-1:] == after[-1:]
    # On a log scale no gap is wider than two places, or than the recorded steps leave.
    if len(after) > MAX_STEPS:
        place = (after[-1] / after[0]) ** (1 / (MAX_STEPS - 1))
        for low, high in zip(chosen, chosen[1:], strict=False):
            following = after[after.index(low) + 1]
            assert high <= max(low * place**2, following) * 1.001


def test_steps_that_are_asked_for_are_read_at_the_evaluation_before() -> None:
    assert recorded_before([24, 25, 26, 60, 10_000], range(0, 101, 25)) == [25, 50, 100]
    assert recorded_before([5], [10]) == []
