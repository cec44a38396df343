from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.law import Law, LawDraws, fit_laws, fit_laws_and_draws
from lora_alpha.analysis.recommend import recommend
from lora_alpha.errors import FitError
from tests.lora_alpha.analysis.planted import LR, planted_cells


@pytest.mark.parametrize("direction", [1, -1])
def test_a_learning_rate_is_answered_up_to_ten_times_off_the_swept(direction: int) -> None:
    cells = planted_cells(np.random.default_rng(0), num_seeds=3, noise=0, shared=0, own=0)
    laws = fit_laws(cells)
    near, far = LR * 9.9**direction, LR * 10.1**direction
    found = recommend(laws, cells, rank=4, lr=near)
    assert found.alpha_estimate == pytest.approx(256 * LR / near, rel=0.05)
    with pytest.raises(FitError, match="more than 10 times off the swept 0.0002"):
        recommend(laws, cells, rank=4, lr=far)


@pytest.mark.parametrize(("num_seeds", "warned"), [(2, ("only 2 seeds: take at least 3",)), (3, ())])
def test_fewer_than_three_seeds_earn_a_warning(num_seeds: int, warned: tuple[str, ...]) -> None:
    cells = planted_cells(np.random.default_rng(0), num_seeds=num_seeds, noise=0, shared=0, own=0)
    assert recommend(fit_laws(cells), cells, rank=4).warnings == warned


def test_finished_cells_without_three_values_of_alpha_are_not_waited_for() -> None:
    cells = planted_cells(np.random.default_rng(0), num_seeds=3, noise=0, shared=0, own=0)
    two = [cell for cell in cells if cell.alpha in sorted({cell.alpha for cell in cells})[:2]]
    with pytest.raises(FitError, match="at least three, extend the grid"):
        recommend(fit_laws(two), two, rank=4)
    with pytest.raises(FitError, match="wait for runs"):
        recommend([], [], rank=4)


def noisy(**options: object) -> list[Cell]:
    return planted_cells(np.random.default_rng(1), num_seeds=3, **options)  # type: ignore[arg-type]


@cache
def noisy_laws() -> tuple[list[Cell], list[Law], LawDraws]:
    cells = noisy(ranks=(1, 8, 64))
    return cells, *fit_laws_and_draws(cells)


@pytest.mark.parametrize("rank", [1, 3, 8, 48, 64])
@pytest.mark.parametrize("lr", [LR, 3 * LR])
def test_everything_on_the_card_is_of_the_alpha_that_is_written(rank: int, lr: float) -> None:
    cells, laws, draws = noisy_laws()
    found = recommend(laws, cells, rank=rank, lr=lr, draws=draws)
    assert found.scale == found.alpha / rank
    assert f"lora_alpha={found.alpha:g}," in found.snippet
    for low, high in ((found.alpha_low, found.alpha_high), (found.basin_low, found.basin_high)):
        if low is not None and high is not None:
            assert low <= found.alpha <= high
            assert (low, high) == (float(f"{low:.4g}"), float(f"{high:.4g}"))
    assert found.alpha == pytest.approx(found.alpha_estimate, rel=0.05)
    if found.regrets:
        assert (found.regrets[0].rule, found.regrets[0].alpha) == ("recommended", found.alpha)


def test_one_best_cell_is_recommended_as_it_was_trained() -> None:
    runs = [
        RunOutcome("lora", 8, alpha, alpha / 8, LR, seed, "finished", 1 + 0.1 * math.log2(alpha / 512) ** 2)
        for alpha in (128.0, 256.0, 512.0, 1024.0, 2048.0)
        for seed in range(3)
    ]
    cells = make_cells(runs)
    found = recommend(fit_laws(cells), cells, rank=8)
    assert (found.alpha, found.scale, found.expected_loss) == (512.0, 64.0, 1.0)
    assert found.alpha_estimate != 512.0
    assert (found.alpha_low or 0) <= 512.0 <= (found.alpha_high or 0)
    assert "lora_alpha=512," in found.snippet


def test_the_expected_loss_is_that_of_the_recommended_alpha() -> None:
    cells = noisy(noise=0, shared=0, own=0, coefficient=150.0, ranks=(1, 4, 16))
    laws = fit_laws(cells)
    found = recommend(laws, cells, rank=4)
    mean = np.mean([run for cell in cells if cell.rank == 4 for run in cell.losses.values()])
    away = math.log2(found.alpha / 300)
    level = np.mean([0.012 * math.log2((cell.alpha or 1) / 300) ** 2 for cell in cells if cell.rank == 4])
    assert found.expected_loss == pytest.approx(mean - level + 0.012 * away**2, rel=1e-9)
    assert recommend(laws, cells, rank=5).expected_loss is None


def test_a_rank_whose_grid_ends_too_early_gets_the_law_and_its_bound() -> None:
    cells, (law,), _ = noisy_laws()
    end = {"low": None, "high": None, "censored": "high_edge", "bound_low": 256.0}
    edge = replace(law, optima=(*law.optima[:2], replace(law.optima[2], **end)))  # type: ignore[arg-type]
    found = recommend([edge], cells, rank=64)
    assert found.basis == "interpolated"
    assert found.warnings[0].startswith("at rank 64 the best α is at least 256, where the grid ends")
    with pytest.raises(FitError, match="at rank 64 the best α is at least 256"):
        recommend([replace(edge, fit=None)], cells, rank=64)


def test_a_bent_law_goes_on_with_its_bend() -> None:
    cells = noisy(noise=0.0005, shared=0, own=0.02, bend=0.15)
    laws = fit_laws(cells)
    assert laws[0].fit is not None
    assert laws[0].fit.bends
    for rank, basis in ((6, "interpolated"), (256, "extrapolated")):
        found = recommend(laws, cells, rank=rank)
        truth = 128 * rank**0.5 * 2 ** (0.15 * (math.log2(rank) - 3) ** 2)
        assert (found.basis, (found.alpha_low or 0) <= truth <= (found.alpha_high or 0)) == (basis, True)


def test_an_optimum_at_a_cliff_is_used_and_its_wall_is_named() -> None:
    cells = noisy(cliff_octaves=0.6, ranks=(4, 16, 64))
    found = recommend(fit_laws(cells), cells, rank=16)
    assert found.basis == "measured"
    assert found.alpha_low is not None
    assert "where runs diverge" in found.warnings[0]
