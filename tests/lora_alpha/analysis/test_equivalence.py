"""α against η on planted surfaces: who wins, when nobody does, and what would decide."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.equivalence import Equivalence, compare_routes
from lora_alpha.analysis.overall import overall_verdict
from lora_alpha.metrics import Metric
from tests.lora_alpha.analysis.planted_routes import ALPHA, LR, Planted, octaves

WINNERS = {"alpha_better", "lr_better"}


def only(items: Sequence[Equivalence]) -> Equivalence:
    (item,) = items
    return item


@pytest.mark.parametrize("basin", ["parabola", "steeper right", "kink", "saturating"])
def test_equal_minima_are_equivalent_whatever_the_basin(basin: str) -> None:
    planted = Planted(basin=basin, noise=0.001)
    found = only(planted.compare(octaves(6, 0.5), octaves(6, 0.5), seeds=5))
    assert (found.verdict, found.limits, found.deciding_cells) == ("equivalent", (), ())
    assert found.low < 0 < found.high


@pytest.mark.parametrize(("gain", "verdict"), [(0.06, "alpha_better"), (-0.06, "lr_better")])
def test_a_minimum_that_is_lower_by_more_than_the_margin_wins(gain: float, verdict: str) -> None:
    found = only(Planted(gain=gain, noise=0.003).compare(seeds=5))
    assert found.verdict == verdict
    assert found.gap == pytest.approx(-gain, abs=0.01)
    assert found.gap_low < -gain < found.gap_high
    assert found.num_seeds == 5


def test_a_difference_below_the_margin_names_no_winner() -> None:
    found = only(Planted(gain=0.016, noise=0.0005).compare(octaves(6, 0.5), octaves(6, 0.5), seeds=5))
    assert found.high < 0
    assert found.verdict == "equivalent"
    strict = only(Planted(gain=0.016, noise=0.0005).compare(octaves(6, 0.5), octaves(6, 0.5), margin=0.0165))
    assert strict.verdict not in WINNERS


@pytest.mark.parametrize("short", [0.5, 1.2, 2.2, 3.2])
def test_a_grid_that_ends_short_of_the_minimum_names_no_winner_and_its_cells_decide(short: float) -> None:
    planted = Planted(best=4.2, noise=0.001)
    runs = planted.grid(octaves(7), octaves(4.2 - short))
    found = only(compare_routes(planted.cells(runs)))
    assert found.verdict == "undecided"
    assert "high_edge" in found.limits
    assert "the largest η" in found.reason
    assert {cell.alpha for cell in found.deciding_cells} == {ALPHA}
    assert min(cell.lr for cell in found.deciding_cells) > found.best_lr
    assert only(planted.settle(runs, rounds=2)).verdict == "equivalent"


def test_a_base_point_that_is_the_best_is_the_same_cell_and_lowering_it_decides() -> None:
    planted = Planted(best=-0.6, noise=0.001)
    runs = planted.grid(octaves(4), octaves(4))
    found = only(compare_routes(planted.cells(runs)))
    assert found.verdict == "undecided"
    assert found.limits == ("same_cell", "low_edge")
    assert "sweep smaller values" in found.reason
    assert min(cell.alpha for cell in found.deciding_cells) == ALPHA / 4
    assert only(planted.settle(runs, rounds=2)).verdict == "equivalent"


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing_and_the_missing_ones_do(seeds: int) -> None:
    planted = Planted(gain=0.1)
    runs = planted.grid(seeds=seeds)
    found = only(compare_routes(planted.cells(runs)))
    assert (found.verdict, found.limits) == ("undecided", ("seeds",))
    assert f"{seeds} seeds in common: at least 3 are needed" in found.reason
    assert (found.difference is None) == (seeds == 1)
    assert all(cell.seeds == tuple(range(seeds, 3)) for cell in found.deciding_cells)
    assert only(planted.settle(runs, rounds=1)).verdict == "alpha_better"
    alike = Planted().grid(octaves(6, 0.5), octaves(6, 0.5), seeds=seeds)
    assert only(compare_routes(make_cells(alike))).verdict == "undecided"


def test_a_coarse_grid_names_no_winner_by_its_spacing_and_its_cells_decide() -> None:
    planted = Planted(basin="saturating", best=3.0, noise=0.0005)
    runs = planted.grid(octaves(6), octaves(6, 2.0))
    assert only(compare_routes(planted.cells(runs))).verdict not in WINNERS
    assert only(planted.settle(runs, rounds=2)).verdict == "equivalent"


def test_what_the_cells_lie_above_their_minimum_is_taken_off() -> None:
    """The η route's cells are an octave from the minimum on either side: 0.05 too high."""
    found = only(Planted(best=3.0).compare(octaves(6, 0.5), octaves(6, 2.0)))
    assert found.loss_lr_route > found.loss_alpha_route + 0.04
    assert found.gap == pytest.approx(0.0, abs=0.004)
    assert found.verdict == "equivalent"


def test_a_minimum_that_may_well_lie_beyond_the_grid_counts_as_one_at_its_edge() -> None:
    found = only(Planted(best=4.5, noise=0.05, world=0).compare(octaves(8), octaves(5)))
    assert found.best_lr < LR * 2**5
    assert (found.verdict, found.limits) == ("undecided", ("high_edge",))


def test_too_wide_an_interval_asks_for_seeds_by_the_t_formula_and_they_decide() -> None:
    planted = Planted(noise=0.02, world=0)
    runs = planted.grid()
    found = only(compare_routes(planted.cells(runs)))
    assert (found.verdict, found.limits) == ("undecided", ("width",))
    assert all(cell.seeds == found.deciding_cells[0].seeds for cell in found.deciding_cells)
    assert found.deciding_cells[0].seeds[0] == 3
    assert "runs should decide it" in found.reason
    assert only(planted.settle(runs, rounds=2)).verdict == "equivalent"


def test_a_hopeless_comparison_says_so_and_asks_for_nothing() -> None:
    found = only(Planted(noise=0.5, rise=1.0, level=3.0).compare(margin=0.001))
    assert found.verdict == "undecided"
    assert "hopeless at this margin" in found.reason
    assert found.deciding_cells == ()


def test_a_cliff_next_to_the_best_widens_the_interval_and_the_cells_before_it_are_asked_for() -> None:
    planted = Planted(cliff=0.3, best=3.0, noise=0.0005)
    runs = planted.grid(octaves(6), octaves(6, 1.5))
    found = only(compare_routes(planted.cells(runs)))
    assert found.verdict == "undecided"
    assert "cliff" in found.limits
    assert "diverged" in found.reason
    assert found.diverged_alpha_route > 0
    assert found.deciding_cells
    clear = only(Planted(cliff=0.3, best=3.0, noise=0.0005, gain=0.5).compare(octaves(6), octaves(6, 1.5)))
    assert clear.verdict == "alpha_better"


def test_signs_and_units_do_not_turn_a_verdict_round() -> None:
    """The same surface above 0, moved below it, and as a score to be raised."""
    verdicts, gaps = [], []
    for level, metric in ((2.0, None), (-2.0, None), (2.0, Metric("accuracy", "max"))):
        options = {} if metric is None else {"metric": metric}
        found = only(Planted(level=level, gain=0.3, noise=0.002, rise=0.1, **options).compare())
        verdicts.append(found.verdict)
        gaps.append(found.gap)
        assert found.difference is not None
        assert found.difference < 0
    assert verdicts == ["alpha_better"] * 3
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-3)


def test_only_methods_that_choose_alpha_are_compared_each_rank_and_lr_ratio_alone() -> None:
    runs = Planted(noise=0.0005).grid(octaves(6, 0.5), octaves(6, 0.5))
    changed = [
        *runs,
        *(dataclasses.replace(run, method="rslora") for run in runs),
        *(dataclasses.replace(run, rank=2) for run in runs),
        *(dataclasses.replace(run, lr_ratio=16.0) for run in runs),
        *(dataclasses.replace(run, method="lora-alpha") for run in runs if run.alpha == ALPHA),
        RunOutcome("full", None, None, None, LR, 0, "finished", 0.1),
    ]
    found = compare_routes(make_cells(changed))
    assert [(item.method, item.rank, item.lr_ratio) for item in found] == [
        ("lora", 2, 1.0),
        ("lora", 4, 1.0),
        ("lora", 4, 16.0),
        ("rslora", 4, 1.0),
    ]
    assert overall_verdict(found)[0] == "equivalent"


def test_one_alpha_or_no_pair_is_not_enough_data() -> None:
    planted = Planted()
    alone = only(planted.compare((0.0,), octaves(4)))
    assert (alone.verdict, alone.num_seeds) == ("not_enough_data", 0)
    assert "at least two α" in alone.reason
    dead = only(planted.compare((0.0, 1.0), (0.0, 1.0)))
    assert dead.verdict == "undecided"
    gone = only(Planted(cliff=-9.0).compare())
    assert (gone.verdict, gone.best_alpha) == ("not_enough_data", None)
    assert "without a divergence" in gone.reason
    apart = [dataclasses.replace(run, seed=run.seed + 9 * (run.lr > LR)) for run in planted.grid()]
    apart = [run for run in apart if (run.alpha, run.lr) != (ALPHA, LR)]
    nothing = compare_routes(make_cells(apart))
    assert overall_verdict(nothing)[0] == "not_enough_data"
    assert overall_verdict([]) == ("not_enough_data", ["no cell of this sweep has a rank and an α to choose"])


def test_ranks_that_decide_differently_are_mixed_in_plain_words() -> None:
    runs = [
        *Planted(noise=0.001, gain=0.1).grid(ranks=(4,)),
        *Planted(noise=0.001, gain=-0.1).grid(ranks=(16,)),
    ]
    verdict, reasons = overall_verdict(compare_routes(make_cells(runs)))
    assert (verdict, reasons) == ("mixed", ["rank 4: α better; rank 16: η better"])


def test_ranks_that_are_each_too_noisy_decide_together_but_never_over_an_edge() -> None:
    noisy = compare_routes(make_cells(Planted(noise=0.016, world=2).grid(ranks=(1, 2, 4, 8, 16, 32))))
    assert Counter(item.verdict for item in noisy)["undecided"] > 0
    verdict, reasons = overall_verdict(noisy)
    assert verdict == "equivalent"
    assert reasons[-1] == "decided by the average of 6 comparisons"
    edges = [dataclasses.replace(item, verdict="undecided", limits=("high_edge",)) for item in noisy]
    assert overall_verdict(edges)[0] == "undecided"


def test_ranks_that_scatter_beyond_their_errors_are_not_averaged() -> None:
    first, second = compare_routes(make_cells(Planted(noise=0.001).grid(ranks=(1, 2))))
    apart = [
        dataclasses.replace(
            item, verdict="undecided", limits=("width",), gap=gap, error=0.001, tolerance=0.02
        )
        for item, gap in ((first, -0.018), (second, 0.018))
    ]
    assert overall_verdict(apart)[0] == "undecided"


def test_a_missing_run_costs_its_own_weight() -> None:
    runs = Planted(noise=0.001).grid(octaves(6, 0.5), octaves(6, 0.5))
    kept = [run for place, run in enumerate(runs) if place % 11]
    full, partial = only(compare_routes(make_cells(runs))), only(compare_routes(make_cells(kept)))
    assert partial.verdict == full.verdict == "equivalent"
    assert partial.num_seeds == 3


@pytest.mark.parametrize(("ranks", "clear", "freedom"), [((4,), 0.99, 2), ((2, 4), 0.995, 4)])
def test_a_winner_is_named_at_98_percent_for_all_ranks_together(
    ranks: tuple[int, ...], clear: float, freedom: int
) -> None:
    """Seeds ±e about a difference that is just (not) clear of 0; a second rank's seeds scatter alike."""
    for share, verdict in ((1.02, "alpha_better"), (0.98, "undecided")):
        runs = []
        for run in Planted(rise=1.0, best=3.0).grid(ranks=ranks):
            apart = (0.0, 0.01, -0.01)[run.seed] - share * stats.t.ppf(clear, freedom) * 0.01 / np.sqrt(3)
            below = run.lr == LR and run.alpha != ALPHA
            runs.append(dataclasses.replace(run, loss=run.loss + apart * below))
        found = compare_routes(make_cells(runs), margin=0.001)
        assert {item.verdict for item in found} == {verdict}


def test_a_false_winner_is_rare_where_alpha_times_eta_alone_counts() -> None:
    """Worlds of every kind together: at most 3 %, plus three standard errors of what 36 of them can show."""
    winners, decided, num = 0, 0, 0
    rng = np.random.default_rng(0)
    for world in range(36):
        planted = Planted(
            best=3 + rng.random(),
            basin=rng.choice(["parabola", "steeper right", "kink", "quartic", "saturating"]),
            noise=0.05 * rng.choice([0.03, 0.1, 0.3, 1.0]),
            world=world,
        )
        last, step = [(6, 0.5), (6, 1.0), (6, 2.0), (6, 0.7), (2, 1.0), (1, 0.5)][world % 6]
        found = planted.compare(octaves(7), octaves(last, step), seeds=int(rng.choice([3, 5])))
        winners += overall_verdict(found)[0] in WINNERS
        decided += overall_verdict(found)[0] == "equivalent"
        num += 1
    assert winners <= stats.binom.ppf(0.999, num, 0.03)
    assert decided > 0.2 * num


def test_two_routes_to_a_loss_of_zero_are_equivalent() -> None:
    def loss(x: float) -> float:
        return 0.5 * abs(x - 2)

    outcomes = [
        RunOutcome("lora", 4, ALPHA * 2**x, 2.0, LR * 2**y, seed, "finished", loss(x + y))
        for x, y in [(k, 0) for k in range(5)] + [(0, k) for k in range(1, 5)]
        for seed in range(3)
    ]
    found = only(compare_routes(make_cells(outcomes)))
    assert (found.verdict, found.difference) == ("equivalent", pytest.approx(0.0, abs=1e-3))
