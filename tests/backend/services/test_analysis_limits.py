"""Numbers of the analysis that only show in what the service makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from backend.services import analysis, sweeps
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("best", "reached"), [(1e9, 32 * 16), (1e-9, 8 / 16)])
def test_a_search_follows_an_edge_sixteen_times_beyond_the_grid(
    best: float, reached: float, store: Store, settings: Settings, worker: Any
) -> None:
    body = {"workload": "mlp", "ranks": [4], "alphas": [8, 16, 32], "seeds": [0], "steps": 50}
    request = SweepRequest.model_validate({**body, "search": {"kind": "adaptive"}})
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    worker.work(lambda c: 1 + 0.01 * abs(math.log2((c.alpha or 1) / best)))
    alphas = [cell.alpha for cell in analysis.cells(store, sweep.id, Reading()).cells if cell.alpha]
    assert max(alphas, key=lambda alpha: -abs(math.log2(alpha / best))) == reached


def of_the_product(c: Configuration) -> float:
    return 2 + 0.1 * math.log2((c.alpha or 1) * c.lr / 6.4e-3) ** 2


def of_much_else(c: Configuration) -> float:
    """Moved up or down from one (r, η) to the next."""
    return of_the_product(c) + (math.log2(c.lr / 1e-4) / 2 % 2) * (1 + math.log2(c.rank or 1) % 2)


@pytest.mark.parametrize(("loss", "verdict"), [(of_the_product, "η·α"), (of_much_else, "none")])
def test_nine_tenths_of_the_variance_must_be_explained_to_name_a_coordinate(
    loss: Callable[[Configuration], float], verdict: str, store: Store, settings: Settings, worker: Any
) -> None:
    request = SweepRequest(
        workload="mlp",
        ranks=[1, 2, 4],
        alphas=[16, 32, 64, 128, 256],
        lrs=[1e-4, 4e-4, 1.6e-3],
        seeds=[0],
        steps=50,
    )
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    worker.work(loss)
    found = analysis.collapse(store, sweep.id, Reading())
    best = max(item.score or 0 for item in found.items)
    assert found.verdict == verdict
    assert best > 0.9 if verdict != "none" else 0.3 < best < 0.9
