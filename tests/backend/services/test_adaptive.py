from __future__ import annotations

import math
from typing import Any

import pytest

from backend.services import analysis, sweeps
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.sweeps import Sweep

NOW = 1_800_000_000.0
GRID = [2.0**k for k in range(3, 14)]


def adaptive_sweep(store: Store, settings: Settings, **fields: Any) -> Sweep:
    body = {"workload": "mlp", "ranks": [1, 4, 16], "alphas": GRID, "seeds": [0, 1], "steps": 50, **fields}
    request = SweepRequest.model_validate({**body, "search": {"kind": "adaptive"}})
    return sweeps.create(store, settings, request, key=None, now=NOW)


def valley(configuration: Configuration) -> float:
    assert configuration.rank is not None
    assert configuration.alpha is not None
    away = math.log2(configuration.alpha) - 7.3 - 0.5 * math.log2(configuration.rank)
    return 1 + 0.1 * away**2 + 0.001 * configuration.seed


def test_the_first_stage_is_coarse(store: Store, settings: Settings) -> None:
    sweep = adaptive_sweep(store, settings)
    assert sweep.counts.total == 3 * 6 * 2  # 8, 32, 128, 512, 2048, 8192


def test_it_goes_on_until_each_optimum_is_enclosed_to_half_an_octave(
    store: Store, settings: Settings, worker: Any
) -> None:
    sweep = adaptive_sweep(store, settings)
    worker.work(valley)
    done = sweeps.read(store, sweep.id, now=NOW)
    assert done.state == "finished"
    assert done.counts.finished == done.counts.total
    full_grid = 3 * 2 * (2 * len(GRID) - 1)
    assert done.counts.total < 0.65 * full_grid
    (law,) = analysis.law(store, sweep.id, Reading()).laws
    for optimum in law.optima:
        assert optimum.censored == ""
        assert math.log2(optimum.value) == pytest.approx(7.3 + 0.5 * math.log2(optimum.rank), abs=0.01)
    cells = analysis.cells(store, sweep.id, Reading()).cells
    for rank in (1, 4, 16):
        alphas = sorted(cell.alpha for cell in cells if cell.rank == rank and cell.alpha)
        best = min((cell for cell in cells if cell.rank == rank), key=lambda cell: cell.mean or math.inf)
        here = alphas.index(best.alpha)
        assert math.log2(alphas[here + 1] / alphas[here]) <= 0.501
        assert math.log2(alphas[here] / alphas[here - 1]) <= 0.501


def test_an_optimum_beyond_the_grid_is_followed(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings, alphas=[8, 16, 32], ranks=[4])
    worker.work(valley)
    (law,) = analysis.law(store, sweep.id, Reading()).laws
    assert law.optima[0].censored == ""
    assert law.optima[0].value == pytest.approx(2**8.3, rel=0.01)


def test_a_cliff_is_approached_to_half_an_octave(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings, ranks=[4])
    worker.work(lambda c: 1 / (c.alpha or 1) if (c.alpha or 0) <= 300 else math.nan)
    cells = analysis.cells(store, sweep.id, Reading()).cells
    stable = max(cell.alpha or 0 for cell in cells if cell.mean is not None)
    diverged = min(cell.alpha or 0 for cell in cells if cell.num_diverged)
    assert stable <= 300 < diverged
    assert math.log2(diverged / stable) <= 0.501


def test_failures_do_not_make_it_go_on_for_ever(store: Store, settings: Settings, worker: Any) -> None:
    sweep = adaptive_sweep(store, settings)
    for _ in range(50):
        if (job := worker.claim()) is not None:
            worker.fail(job)
        elif not worker.refine():
            break
    assert sweeps.read(store, sweep.id, now=NOW).state == "failed"


def test_a_grid_sweep_ends_with_its_grid(store: Store, settings: Settings, worker: Any) -> None:
    request = SweepRequest(workload="mlp", ranks=[4], alphas=GRID, seeds=[0], steps=50)
    sweep = sweeps.create(store, settings, request, key=None, now=NOW)
    worker.work(valley)
    assert sweeps.read(store, sweep.id, now=NOW).counts.total == len(GRID)


def test_the_plan_says_that_more_will_come(store: Store, settings: Settings) -> None:
    request = SweepRequest.model_validate(
        {"workload": "mlp", "ranks": [4], "alphas": GRID, "search": {"kind": "adaptive"}}
    )
    plan = sweeps.plan(store, settings, request, now=NOW)
    assert plan.num_runs == 6 * 3
    assert any("Adaptive search" in warning for warning in plan.warnings)
