from __future__ import annotations

import dataclasses

import pytest

from lora_alpha.analysis.cells import Cell, RunOutcome, constant_alpha, make_cells
from lora_alpha.analysis.schedules import ScheduleComparison, compare_schedules, schedules_verdict

BEST = 4.3  # log₂ of the best α


def runs(
    schedule: str,
    *,
    gain: float = 0.0,
    scatter: float = 0.002,
    octaves: range = range(1, 9),
    seeds: int = 3,
    rank: int = 4,
    shift: float = 0.0,
) -> list[RunOutcome]:
    """A parabola in log₂ α, the schedule's lower by ``gain``; seeds move its level by ± ``scatter``."""
    apart = dict(enumerate([0.0, scatter, -scatter, scatter / 2, -scatter / 2]))
    return [
        RunOutcome(
            *("lora", rank, 2.0**k, 2.0**k / rank, 1e-3, seed, "finished"),
            1.0 + 0.05 * (k - BEST - shift) ** 2 + 0.1 * seed - gain + (apart[seed] if gain else 0.0),
            alpha_schedule=schedule,
        )
        for k in octaves
        for seed in range(seeds)
    ]


def one(*parts: list[RunOutcome], margin: float = 0.02) -> ScheduleComparison:
    (item,) = compare_schedules(cells(*parts), margin=margin)
    return item


def cells(*parts: list[RunOutcome]) -> list[Cell]:
    return make_cells(run for part in parts for run in part)


def test_runs_of_different_schedules_are_different_cells() -> None:
    found = cells(runs("constant"), runs("ramp", octaves=range(4, 5)))
    assert [(cell.alpha_schedule, cell.alpha, cell.n) for cell in found[-2:]] == [
        ("constant", 256.0, 3),
        ("ramp", 16.0, 3),
    ]
    assert constant_alpha(found) == found[:8]


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.1, "better"), (-0.1, "worse"), (0.0, "equivalent"), (0.004, "equivalent")]
)
def test_minima_over_alpha_are_compared_seed_by_seed(gain: float, verdict: str) -> None:
    item = one(runs("constant"), runs("ramp", gain=gain))
    assert item.verdict == verdict
    assert item.gap == pytest.approx(-gain, abs=0.004)
    assert item.low <= item.difference <= item.high
    assert (item.best_alpha, item.constant_alpha, item.num_alphas, item.num_seeds) == (16.0, 16.0, 8, 3)


def test_a_shifted_grid_of_alpha_is_corrected_for() -> None:
    """The schedule's best α lies between its cells, constant α's on one: no cell of it is as low."""
    item = one(runs("constant", shift=-0.3), runs("ramp", shift=0.2))
    assert item.loss > item.constant_loss + 0.01
    assert item.verdict == "equivalent"


@pytest.mark.parametrize(("octaves", "limit"), [(range(1, 5), "high_edge"), (range(5, 9), "low_edge")])
def test_a_best_at_the_edge_of_its_grid_names_no_winner(octaves: range, limit: str) -> None:
    item = one(runs("constant"), runs("ramp", gain=0.3, octaves=octaves))
    assert (item.verdict, item.limits) == ("undecided", (limit,))
    assert "sweep" in item.reason


def test_fewer_than_three_seeds_name_no_winner() -> None:
    item = one(runs("constant"), runs("ramp", gain=0.5, seeds=2))
    assert (item.verdict, item.limits, item.num_seeds) == ("undecided", ("seeds",), 2)
    single = one(runs("constant"), runs("ramp", gain=0.5, seeds=1))
    assert (single.verdict, single.difference) == ("undecided", None)


def test_more_schedules_need_stronger_evidence() -> None:
    close = {"gain": 0.06, "scatter": 0.008}
    alone = one(runs("constant"), runs("a", **close))
    many = compare_schedules(cells(runs("constant"), *(runs(name, **close) for name in "abcdef")))
    assert alone.difference == pytest.approx(many[0].difference)
    assert many[0].high > alone.high
    assert (alone.verdict, many[0].verdict) == ("better", "undecided")


def test_no_stands_only_where_every_comparison_was_decided() -> None:
    worse = one(runs("constant"), runs("ramp", gain=-0.1))
    same = one(runs("constant"), runs("ramp"))
    better = one(runs("constant"), runs("ramp", gain=0.1))
    edge = one(runs("constant"), runs("ramp", octaves=range(1, 5)))
    alone = one(runs("ramp"))
    assert schedules_verdict([worse, same]) == (
        "No: of 2 comparisons none beats the best constant α; 1 are worse, 1 equivalent within the margin."
    )
    assert schedules_verdict([worse, edge]).startswith("Undecided: of 2 comparisons none is known to beat")
    assert "1 undecided" in schedules_verdict([worse, edge])
    assert schedules_verdict([worse, alone]).startswith("Undecided: of 2")
    assert schedules_verdict([worse, edge, better]).startswith("Yes: 1 of 3 comparisons beat")
    assert schedules_verdict([alone]).startswith("Not enough data")
    assert schedules_verdict([]) == "No run of this sweep moves α during training."


def test_what_cannot_be_compared_says_why() -> None:
    alone = one(runs("ramp"))
    assert "no cell with constant α" in alone.reason
    gone = [dataclasses.replace(run, loss=None, diverged=True) for run in runs("ramp")]
    dead = one(runs("constant"), gone)
    assert "of this schedule finished without a divergence" in dead.reason
    assert dead.num_diverged == 24
    apart = one(runs("constant"), [dataclasses.replace(run, seed=run.seed + 9) for run in runs("ramp")])
    assert apart.reason == "no seed in common"
    assert {item.verdict for item in (alone, dead, apart)} == {"not_enough_data"}


def test_ranks_and_lr_ratios_are_groups_of_their_own() -> None:
    other = [dataclasses.replace(run, lr_ratio=16.0) for run in runs("constant") + runs("ramp")]
    found = compare_schedules(cells(runs("constant"), runs("ramp"), runs("ramp", rank=8), other))
    assert [(item.rank, item.lr_ratio, item.verdict) for item in found] == [
        (4, 1.0, "equivalent"),
        (4, 16.0, "equivalent"),
        (8, 1.0, "not_enough_data"),
    ]
