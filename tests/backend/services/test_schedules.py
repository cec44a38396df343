"""Runs whose α moves: compared with constant α, and kept out of the laws of α."""

from __future__ import annotations

import csv
import math
from typing import Any

import pytest
from sqlalchemy import update

from backend.export import Asked, csv_blocks
from backend.services import analysis, runs, sweeps
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import RunRow
from lora_alpha.request import SweepRequest
from lora_alpha.spec import AlphaSchedule, Configuration
from lora_alpha.wire.sweeps import Sweep

NOW = 1_800_000_000.0
RAMP = AlphaSchedule(kind="ramp", start=0.1, ramp_steps=50)
HOLD = AlphaSchedule(kind="hold", target_metric="update_norm", target=2.0)
ALPHAS = (32.0, 64.0, 128.0, 256.0, 512.0)


@pytest.fixture
def sweep(store: Store, settings: Settings) -> Sweep:
    cells = [
        Configuration(method="lora", rank=rank, alpha=alpha, lr=2e-4, seed=seed, alpha_schedule=schedule)
        for schedule in (AlphaSchedule(), RAMP, HOLD)
        for rank in (2, 4)
        for alpha in ALPHAS
        for seed in (0, 1, 2)
    ]
    request = SweepRequest(workload="mlp", cells=cells, steps=100, dynamics_every=10)
    return sweeps.create(store, settings, request, key=None, now=NOW)


def loss(configuration: Configuration) -> float:
    """The ramp costs 30 %, holding gains 10 %; the best α differs."""
    kind = configuration.alpha_schedule.kind
    best, factor = {"constant": (128.0, 1.0), "ramp": (256.0, 1.3), "hold": (64.0, 0.9)}[kind]
    assert configuration.alpha is not None
    return factor * (1 + 0.1 * math.log2(configuration.alpha / best) ** 2) + 0.001 * configuration.seed


def test_the_answer_can_be_yes_and_no(store: Store, sweep: Sweep, worker: Any, client: Any) -> None:
    waiting = client.schedules(sweep.id)
    assert (waiting.num_pending, waiting.verdict[:15]) == (90, "Not enough data")
    worker.work(loss)
    answer = client.schedules(sweep.id)
    assert answer.num_pending == 0
    assert len(answer.items) == 4
    by_name = {(item.rank, item.alpha_schedule): item for item in answer.items}
    hold, ramp = by_name[2, HOLD.label], by_name[2, RAMP.label]
    assert (hold.verdict, hold.best_alpha, hold.constant_alpha) == ("better", 64.0, 128.0)
    assert hold.difference == pytest.approx(-0.1 / 0.95, rel=0.01)
    assert (ramp.verdict, ramp.best_alpha) == ("worse", 256.0)
    assert answer.verdict.startswith("Yes: 2 of 4")


def test_a_law_of_alpha_is_about_constant_alpha(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(loss)
    laws = analysis.law(store, sweep.id, Reading())
    assert all(o.loss < 1.2 and 100 < o.value < 200 for law in laws.laws for o in law.optima)
    assert laws.laws[0].num_seeds == 3
    assert any("60 runs in 20 cells are left out: their α moves" in text for text in laws.warnings)
    assert any("60 runs" in text for text in analysis.collapse(store, sweep.id, Reading()).reasons)
    assert analysis.recommend(store, sweep.id, rank=4, lr=None).num_supporting_runs <= 30
    cells = analysis.cells(store, sweep.id, Reading()).cells
    assert [cell.alpha_schedule for cell in cells] == [
        n for n in ("constant", HOLD.label, RAMP.label) for _ in range(10)
    ]
    assert all(cell.n == 3 for cell in cells)


def test_a_sweep_in_which_every_alpha_moves_says_why_it_has_no_law(
    store: Store, settings: Settings, worker: Any
) -> None:
    request = SweepRequest(
        workload="mlp", ranks=[2, 4], alphas=list(ALPHAS), steps=100, alpha_schedule=RAMP, seeds=[0, 1]
    )
    made = sweeps.create(store, settings, request, key=None, now=NOW)
    worker.work(loss)
    laws = analysis.law(store, made.id, Reading())
    assert laws.laws == []
    assert laws.reasons == ["α moves during training in every cell: a law is about constant α"]


def test_the_final_scale_is_what_a_scheduled_run_shows_and_exports(
    store: Store, sweep: Sweep, worker: Any
) -> None:
    worker.work(loss)
    shown = runs.listing(store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=100).items
    held = next(run for run in shown if run.alpha_schedule == HOLD.label)
    assert held.scale == held.alpha / held.rank
    with store.write() as session:
        session.execute(update(RunRow).where(RunRow.id == held.id).values(summary={"scale": 3.25}))
    assert runs.read(store, held.id).scale == 3.25
    text = b"".join(csv_blocks(store, "runs", Asked([sweep.id]))).decode()
    row = next(row for row in csv.DictReader(text.splitlines()) if row["run_id"] == held.id)
    assert (row["scale"], row["alpha_schedule"]) == ("3.25", "hold update_norm 2")


def test_curves_of_different_schedules_are_different_lines(store: Store, sweep: Sweep, worker: Any) -> None:
    worker.work(loss)
    drawn = runs.curves(
        store,
        filters={"sweep": [sweep.id], "rank": [4], "alpha": [128.0]},
        metric="eval_loss",
        points=100,
        group_by="cell",
        from_step=None,
    ).curves
    assert [(curve.labels["alpha_schedule"], len(curve.run_ids)) for curve in drawn] == [
        ("constant", 3),
        (RAMP.label, 3),
        (HOLD.label, 3),
    ]
    names = {
        run.name
        for run in runs.listing(
            store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=100
        ).items
    }
    assert len(names) == 90
