"""What is said beside a fit: its band, common rules and rivals, and the sentence on √r."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.law import fit_laws, no_law_reasons, verdict_on_half
from lora_alpha.analysis.power_law import LawFit

FIT = LawFit(
    exponent=0.5,
    exponent_low=0.4,
    exponent_high=0.6,
    coefficient=100.0,
    coefficient_low=90.0,
    coefficient_high=110.0,
    scatter_octaves=0.1,
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
    (one_seed,) = fit_laws(make_cells(outcomes((1, 2, 4), seeds=1)))
    assert one_seed.band is not None
    assert (one_seed.band.low, one_seed.band.high) == ((), ())


def test_rules_and_rivals_are_about_alpha() -> None:
    (law,) = fit_laws(make_cells(outcomes((1, 2, 4))))
    assert {(cost.rule, cost.rank) for cost in law.rules} >= {("α = 32", 1), ("α = 32", 4)}
    faster_b = [dataclasses.replace(run, lr_ratio=2.0) for run in outcomes((1, 2, 4))]
    assert fit_laws(make_cells(faster_b))[0].rules == law.rules
    assert law.rivals[0].name.startswith("α ∝ r")
    assert law.verdict.startswith("p = 1.00, 95 % interval 1.00 to 1.00: this sweep contradicts p = 1/2.")
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
            "p = 0.50, 95 % interval 0.50 to 0.50: consistent with √r on this sweep.",
        ),
        ({"exponent_low": 0.51}, "p = 0.50, 95 % interval 0.51 to 0.60: this sweep contradicts p = 1/2."),
        ({"exponent_high": 0.49}, "p = 0.50, 95 % interval 0.40 to 0.49: this sweep contradicts p = 1/2."),
        (
            {"exponent_low": -0.1, "exponent_high": 1.1},
            "p = 0.50, 95 % interval -0.10 to 1.10: consistent with √r on this sweep; "
            "but it also contains p = 0 and 1: too wide to decide.",
        ),
        (
            {"exponent_low": None},
            "p = 0.50 without an interval: one seed cannot support or contradict p = 1/2.",
        ),
        (
            {"exponent_high": None},
            "p = 0.50 without an interval: one seed cannot support or contradict p = 1/2.",
        ),
        (
            {"bend": 0.1, "bend_low": -0.05, "bend_high": 0.25},
            "p = 0.50, 95 % interval 0.40 to 0.60: consistent with √r on this sweep.",
        ),
        (
            {"bend": 0.1, "bend_low": 0.05, "bend_high": 0.15},
            "p = 0.50, 95 % interval 0.40 to 0.60: consistent with √r on this sweep. "
            "But α* grows ever faster with rank: no single power law describes these optima.",
        ),
        (
            {"bend": -0.1, "bend_low": -0.15, "bend_high": -0.05, "exponent_low": 0.51},
            "p = 0.50, 95 % interval 0.51 to 0.60: this sweep contradicts p = 1/2. "
            "But α* grows ever slower with rank: no single power law describes these optima.",
        ),
    ],
)
def test_what_a_fit_says_of_the_square_root(changes: dict[str, float | None], said: str) -> None:
    assert verdict_on_half(dataclasses.replace(FIT, **changes), []) == said  # type: ignore[arg-type]


def test_no_fit_says_why() -> None:
    assert verdict_on_half(None, ["first", "second"]) == "No law could be fitted: first; second"


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
