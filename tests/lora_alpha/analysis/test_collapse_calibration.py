"""How often intervals and leads are wrong on planted surfaces; seeds are fixed, bounds leave three sigma."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.lora_alpha.analysis.planted_collapse import planted, verdict_of

SMALL: dict[str, Any] = {"ranks": (4, 16, 64), "num_lrs": 2, "num_alphas": 7}


@pytest.mark.parametrize(
    "world", [{"noise": 0.1}, {"noise": 0.02, "shift": 0.2}, {"noise": 0.1, "num_seeds": 5}]
)
def test_the_truth_is_covered_and_does_not_lose(world: dict[str, Any]) -> None:
    covered, lost, total = np.zeros(2), 0, 24
    known = np.zeros(2)
    for seed in range(total):
        fit, scores = verdict_of(planted(np.random.default_rng(seed), **{**SMALL, **world}))
        truth = next(score for score in scores if score.coordinate == "η·α/√r")
        lost += truth.behind_low is not None and truth.behind_low > 0
        for i, (found, true) in enumerate([(fit.alpha, 1.0), (fit.rank, -0.5)]):
            if found is not None:
                known[i] += 1
                covered[i] += found.low <= true <= found.high
    assert lost <= 2
    assert (known >= total / 4).all()
    assert (covered / known > 0.84).all()


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_of_two_coordinates_equally_good_none_leads(shift: float) -> None:
    """At −0.244 η·α and η·α/√r leave the same misfit over this grid without noise."""
    named = 0
    for seed in range(24):
        rng = np.random.default_rng(seed)
        cells = planted(rng, (1.0, 1.0, -0.244), noise=0.03, floors=0.1, shift=shift, ranks=(4, 16, 64))
        _, scores = verdict_of(cells)
        two = [score for score in scores if score.coordinate in ("η·α", "η·α/√r")]
        named += any((score.behind_low or 0) > 0 for score in two)
    assert named <= 4
