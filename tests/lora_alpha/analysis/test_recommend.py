from __future__ import annotations

import numpy as np
import pytest

from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.recommend import recommend
from lora_alpha.errors import FitError
from tests.lora_alpha.analysis.planted import LR, planted_cells


@pytest.mark.parametrize("direction", [1, -1])
def test_a_learning_rate_is_answered_up_to_ten_times_off_the_swept(direction: int) -> None:
    cells = planted_cells(np.random.default_rng(0), num_seeds=3, noise=0, shared=0, own=0)
    laws = fit_laws(cells)
    near, far = LR * 9.9**direction, LR * 10.1**direction
    found = recommend(laws, cells, rank=4, lr=near)
    assert found.alpha_estimate == pytest.approx(256 * LR / near, rel=1e-6)
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
