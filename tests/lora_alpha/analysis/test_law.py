"""What is said beside a fit: its band, common rules and rivals, and the sentence on √r."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.law import fit_laws, no_law_reasons, verdict_on_half
from lora_alpha.analysis.power_law import LawFit, Trend
from tests.lora_alpha.analysis.planted import RANKS, planted_cells, planted_law

FIT = LawFit(
    exponent=0.5,
    exponent_low=0.4,
    exponent_high=0.6,
    coefficient=100.0,
    coefficient_low=90.0,
    coefficient_high=110.0,
    scatter_octaves=0.1,
    line=Trend((6.64, 0.5), ((0.01, 0.0), (0.0, 0.01)), 2.0),
)


def outcomes(ranks: tuple[int, ...], *, seeds: int = 2, schedule: str = "constant") -> list[RunOutcome]:
    """Each rank's loss is lowest at α = 16·r; a seed adds to it."""
    return [
        RunOutcome(
            "lora", rank, alpha, alpha / rank, 1e-3, seed, "finished",
            1 + abs(np.log2(alpha / (16 * rank))) + 0.01 * seed, alpha_schedule=schedule,
        )
        for rank in ranks
        for alpha in (8.0, 16.0, 32.0, 64.0, 128.0)
        for seed in range(seeds)
    ]  # fmt: skip


def test_the_band_goes_a_little_beyond_the_ranks() -> None:
    (law,) = fit_laws(make_cells(outcomes((1, 2, 4))))
    assert law.fit is not None
    assert law.band is not None
    assert len(law.band.rank) == len(law.band.value) == len(law.band.low) == len(law.band.high) == 49
    np.testing.assert_allclose([law.band.rank[0], law.band.rank[24], law.band.rank[-1]], [1 / 1.4, 2.0, 5.6])
    np.testing.assert_allclose(law.band.value, law.fit.predict(law.band.rank)[0])
    np.testing.assert_allclose(law.band.low, law.fit.predict(law.band.rank)[1])
    np.testing.assert_allclose(law.band.high, law.fit.predict(law.band.rank)[2])
    fitted = law.fit.predict([optimum.rank for optimum in law.optima])
    for optimum, low, high in zip(law.optima, fitted[1], fitted[2], strict=True):
        assert low <= optimum.value <= high


def test_rules_and_rivals_are_about_alpha() -> None:
    (law,) = fit_laws(make_cells(outcomes((1, 2, 4))))
    assert {(cost.rule, cost.rank) for cost in law.rules} >= {("α = 32", 1), ("α = 32", 4)}
    faster_b = [dataclasses.replace(run, lr_ratio=2.0) for run in outcomes((1, 2, 4))]
    assert fit_laws(make_cells(faster_b))[0].rules == law.rules
    assert law.rivals[0].name.startswith("α ∝ r")
    assert "this sweep contradicts p = 1/2." in law.verdict
    assert law.fit is not None
    assert law.fit.exponent == pytest.approx(1.0, abs=0.02)
    runs = [
        dataclasses.replace(run, lr=run.alpha / 1e5, alpha=8.0) for run in outcomes((1, 2, 4)) if run.alpha
    ]
    (by_lr,) = fit_laws(make_cells(runs), target="lr")
    assert (by_lr.lr, by_lr.alpha, by_lr.fixed) == (None, 8.0, 8.0)
    assert (by_lr.rules, by_lr.rivals, by_lr.verdict) == ((), (), "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "p = 0.50, 95 % interval 0.40 to 0.60: consistent with √r on this sweep."),
        (
            {"exponent_low": 0.5, "exponent_high": 0.5},
            "p = 0.500, 95 % interval 0.500 to 0.500: consistent with √r on this sweep.",
        ),
        ({"exponent_low": 0.51}, "p = 0.50, 95 % interval 0.51 to 0.60: this sweep contradicts p = 1/2."),
        ({"exponent_high": 0.49}, "p = 0.50, 95 % interval 0.40 to 0.49: this sweep contradicts p = 1/2."),
        (
            {"exponent_low": -0.1, "exponent_high": 1.1},
            "p = 0.50, 95 % interval -0.10 to 1.10: too wide to decide, "
            "it contains p = 0 and p = 1 as well as p = 1/2.",
        ),
        (
            {"bend": 0.1, "bend_low": -0.05, "bend_high": 0.25},
            "p = 0.50, 95 % interval 0.40 to 0.60: consistent with √r on this sweep.",
        ),
        (
            {"bend": 0.1, "bend_low": 0.05, "bend_high": 0.15},
            "α* grows ever faster with rank: no single power law describes these optima. "
            "The straight line through them has p = 0.50, 95 % interval 0.40 to 0.60.",
        ),
        (
            {"bend": -0.1, "bend_low": -0.15, "bend_high": -0.05, "exponent_low": 0.51},
            "α* grows ever slower with rank: no single power law describes these optima. "
            "The straight line through them has p = 0.50, 95 % interval 0.51 to 0.60.",
        ),
    ],
)
def test_what_a_fit_says_of_the_square_root(changes: dict[str, float | None], said: str) -> None:
    assert verdict_on_half(dataclasses.replace(FIT, **changes), [], num_seeds=3) == said  # type: ignore[arg-type]


def test_no_fit_says_why() -> None:
    assert verdict_on_half(None, ["first", "second"], num_seeds=3) == "No law could be fitted: first; second"


def test_no_law_at_all_says_why() -> None:
    cells = make_cells(outcomes((1, 2, 4)))
    assert no_law_reasons(cells, fit_laws(cells), target="alpha") == []
    assert no_law_reasons([], [], target="alpha") == ["no cell of this sweep has finished yet"]
    moving = make_cells(outcomes((1,), schedule="ramp"))
    assert fit_laws(moving) == []
    assert no_law_reasons(moving, [], target="alpha") == [
        "α moves during training in every cell: a law is about constant α"
    ]
    few = [cell for cell in cells if cell.alpha and cell.alpha < 32]
    assert no_law_reasons(few, fit_laws(few), target="alpha") == [
        "no rank has three values of α yet: an optimum needs at least three"
    ]
    assert "values of η yet" in no_law_reasons(cells, [], target="lr")[0]


@pytest.mark.parametrize("low", [0.4, 0.51])
def test_one_seed_decides_nothing(low: float) -> None:
    said = verdict_on_half(dataclasses.replace(FIT, exponent_low=low), [], num_seeds=1)
    assert said == (
        f"p = 0.50, 95 % interval {low:.2f} to 0.60 by the scatter of one seed's losses about their curves: "
        "what another seed would move is not in it, so that it cannot support or contradict p = 1/2."
    )
    (law,) = fit_laws(make_cells(outcomes((1, 2, 4), seeds=1)))
    assert law.num_seeds == 1
    assert "cannot support or contradict" in law.verdict


def test_a_planted_law_is_found() -> None:
    law = planted_law(np.random.default_rng(0), num_seeds=3)
    assert (law.num_ranks, law.num_censored, law.num_excluded, law.num_seeds) == (7, 0, 0, 3)
    assert law.fit is not None
    assert law.fit_uncensored == law.fit
    assert law.fit.exponent_low < 0.5 < law.fit.exponent_high < law.fit.exponent_low + 0.6
    assert law.fit.coefficient_low < 128 < law.fit.coefficient_high
    assert law.fit.bend is not None
    assert len(law.models) == 5


def test_two_optima_inside_and_one_beyond_are_a_law() -> None:
    cells = planted_cells(
        np.random.default_rng(1),
        num_seeds=3,
        ranks=(1, 4, 4096),
        grid=[2.0**k for k in range(4, 11)],
        shared=0,
        own=0,
    )
    (law,) = fit_laws(cells)
    assert [optimum.censored for optimum in law.optima] == ["", "", "high_edge"]
    assert law.fit is not None
    assert law.fit_uncensored is None
    assert law.fit.exponent_low < 0.5 < law.fit.exponent_high
    assert (law.num_censored, law.num_excluded, law.models) == (1, 0, ())


def test_too_few_ranks_or_optima_inside_say_why() -> None:
    (two,) = fit_laws(make_cells(outcomes((1, 2))))
    assert two.reasons == ("2 ranks have an optimum: a law needs at least 3",)
    assert (two.fit, two.fit_uncensored, two.band, two.num_excluded, two.models) == (None, None, None, 2, ())
    assert two.verdict == "No law could be fitted: " + two.reasons[0]
    falling = [
        dataclasses.replace(run, loss=1 / run.alpha) for run in outcomes((1, 2, 4)) if run.alpha
    ]  # the optimum of every rank lies beyond the largest α
    (outside,) = fit_laws(make_cells(falling))
    assert outside.reasons == (
        "0 of 3 optima lie inside the grid: a law needs at least 2. Extend the α grid beyond its edges",
    )


def test_a_missing_run_hardly_changes_a_law_and_a_tenth_of_them_leave_one() -> None:
    cells = planted_cells(np.random.default_rng(2), num_seeds=3, ranks=RANKS[:5])

    def width(missing: set[tuple[int, int]]) -> float:
        """Of the interval of p without some runs, given as cell and seed."""
        kept = [
            RunOutcome("lora", cell.rank, cell.alpha, cell.scale, cell.lr, seed, "finished", loss)
            for place, cell in enumerate(cells)
            for seed, loss in cell.losses.items()
            if (place, seed) not in missing
        ]
        (law,) = fit_laws(make_cells(kept))
        assert law.fit is not None
        assert law.fit.exponent == pytest.approx(0.5, abs=0.2)
        return law.fit.exponent_high - law.fit.exponent_low

    rng = np.random.default_rng(3)
    some = {(int(cell), int(seed)) for cell, seed in rng.integers(0, (len(cells), 3), (15, 2))}
    whole = width(set())
    assert 1 / 1.3 < width({(5, 1)}) / whole < 1.3
    assert 0.5 < width(some) / whole < 2.5


def test_a_law_below_cliffs_half_an_octave_above_its_optima() -> None:
    cells = planted_cells(
        np.random.default_rng(4), num_seeds=3, ranks=RANKS[:5], shared=0, own=0, cliff_octaves=0.5
    )
    (law,) = fit_laws(cells)
    assert law.fit is not None
    for optimum in law.optima:
        assert optimum.low is not None
        assert optimum.high is not None
        assert optimum.low <= 128 * optimum.rank**0.5 <= optimum.high
