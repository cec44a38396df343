from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lora_alpha.analysis.cells import RunOutcome, make_cells


def run(alpha: float, seed: int, loss: float | None, **changes: object) -> RunOutcome:
    values: dict[str, object] = {"status": "finished", "diverged": False, **changes}
    return RunOutcome("lora", 4, alpha, alpha / 4, 1e-3, seed, loss=loss, **values)  # type: ignore[arg-type]


def test_interval_pools_the_spread_of_cells_of_one_rank() -> None:
    table = {8.0: [1.0, 1.2, 1.1], 16.0: [0.7, 0.9, 0.5], 32.0: [2.0, 2.1]}
    cells = make_cells(run(a, seed, loss) for a, losses in table.items() for seed, loss in enumerate(losses))
    squares = sum(((np.array(v) - np.mean(v)) ** 2).sum() for v in table.values())
    for cell in cells:
        losses = table[cell.alpha or 0]
        half = stats.t.ppf(0.975, 5) * np.sqrt(squares / 5 / len(losses))
        assert cell.ci_high == pytest.approx(np.mean(losses) + half, rel=1e-12)
        assert cell.std == pytest.approx(np.std(losses, ddof=1), rel=1e-12)


def test_diverged_failed_and_pending_are_counted_never_averaged() -> None:
    (cell,) = make_cells(
        [
            run(8.0, 0, 1.0),
            run(8.0, 1, 1e30, diverged=True),
            run(8.0, 2, None, status="failed"),
            run(8.0, 3, None, status="pending"),
        ]
    )
    assert (cell.n, cell.mean, cell.std) == (1, 1.0, None)
    assert (cell.num_diverged, cell.num_failed, cell.num_pending) == (1, 1, 1)
    assert not cell.measured


def test_methods_and_ratios_never_share_a_cell() -> None:
    cells = make_cells([run(8.0, 0, 1.0), run(8.0, 0, 2.0, lr_ratio=16.0)])
    assert [cell.mean for cell in cells] == [1.0, 2.0]
