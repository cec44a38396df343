from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from backend.export import text_cell
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.metrics import append_points, decimal_values, read_metric
from backend.store.tables import ProbeRow, RunRow
from lora_alpha.request import SweepRequest
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

NOW = 1_800_000_000.0
# The promise: these columns, in this order; new ones only behind them.
PROMISED = {
    "runs": "run_id, sweep_id, name, state, diverged, workload, method, rank, alpha, scale, lr, seed, steps, "
    "final_loss, best_loss, best_step, forgetting, started_at, duration_s, tags, error",
    "history": "run_id, metric, step, time, value",
    "cells": "sweep_id, method, rank, alpha, scale, lr, n, mean, std, ci_low, ci_high, "
    "num_diverged, num_failed",
    "optima": "sweep_id, workload, method, lr, rank, alpha_star, alpha_low, alpha_high, "
    "basin_low, basin_high, loss, censored, num_seeds, target",
    "law": "sweep_id, workload, method, lr, exponent, exponent_low, exponent_high, "
    "coefficient, coefficient_low, coefficient_high, "
    "num_ranks, num_censored, num_seeds, num_diverged, num_excluded, target",
    "horizon": "sweep_id, workload, method, lr, alpha, lr_ratio, target, step, "
    "exponent, exponent_low, exponent_high, coefficient, coefficient_low, coefficient_high, "
    "num_ranks, num_censored, num_seeds, num_diverged, num_pending, decaying, warming, reasons, verdict",
    "probes": "probe_id, run_id, step, space, kind, index, value, error",
    "rules": "sweep_id, workload, method, lr, lr_ratio, rank, rule, alpha, measured, diverged, loss, "
    "best_loss, cost, excess, regret, regret_low, regret_high, regret_share, regret_share_low, "
    "regret_share_high, unit, share_of, reason",
    "advice": "sweep_id, workload, method, lr, lr_ratio, rank, alpha, scale, alpha_low, alpha_high, "
    "basin_low, basin_high, basis, expected_loss, alpha_estimate, kappa, kappa_low, kappa_high, "
    "kappa_num_lrs, num_supporting_runs, reason",
    "collapse": "sweep_id, workload, method, lr_ratio, coordinate, "
    "alpha_exponent, alpha_exponent_low, alpha_exponent_high, lr_exponent, "
    "rank_exponent, rank_exponent_low, rank_exponent_high, score, ceiling, behind, behind_low, behind_high, "
    "alike, compatible, num_compared, num_alone, num_curves, num_seeds, num_diverged, verdict",
    "collapse_points": "sweep_id, method, lr_ratio, coordinate, rank, lr, alpha, x, loss, level",
    "verdicts": "sweep_id, workload, method, rank, lr_ratio, base_alpha, base_lr, best_alpha, best_lr, "
    "loss_alpha_route, loss_lr_route, diverged_alpha_route, diverged_lr_route, difference, low, high, "
    "margin, gap, gap_low, gap_high, tolerance, error, freedom, num_seeds, verdict, limits, reason",
    "deciding": "sweep_id, method, rank, alpha, lr, lr_ratio, seed",
}


def table(client: Client, kind: str, sweep: str | None = None) -> list[dict[str, str]]:
    text = b"".join(client.export_csv(kind, sweep)).decode()
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def sweep(client: Client, worker: Any) -> Sweep:
    sweep = client.create_sweep(
        SweepRequest(
            workload="mlp",
            ranks=[1, 4, 16],
            alphas=[2.0**k for k in range(4, 12)],
            lrs=[1e-4, 2e-4, 4e-4],
            seeds=[0, 1],
            steps=100,
            tags=["a", "b"],
        )
    )
    worker.work(
        lambda c: math.nan if (c.alpha or 0) > 1000 and c.lr > 3e-4 else 1 / 3 + (c.alpha or 1) ** 0.1 / c.lr
    )
    return client.sweep(sweep.id)


@pytest.mark.parametrize("kind", list(PROMISED))
def test_the_promised_columns_come_first(kind: str, client: Client) -> None:
    (header,) = b"".join(client.export_csv(kind)).decode().splitlines()
    promised = PROMISED[kind].split(", ")
    assert header.split(",")[: len(promised)] == promised


def test_runs_equal_the_api_to_the_last_digit(client: Client, http: Any, sweep: Sweep) -> None:
    rows = table(client, "runs", sweep.id)
    runs = {}
    cursor = ""
    while cursor is not None:
        page = http.get(
            "/api/runs", params={"sweep": sweep.id, "limit": 100, "cursor": cursor or None}
        ).json()
        runs |= {run["id"]: run for run in page["items"]}
        cursor = page["next"]
    assert len(rows) == len(runs) == 144
    for row in rows:
        run = runs[row["run_id"]]
        for name in ("alpha", "scale", "lr", "final_loss", "best_loss", "duration_s"):
            assert row[name] == ("" if run[name] is None else repr(run[name]))
        assert row["started_at"] == run["started_at"]
        assert row["diverged"] == json.dumps(run["diverged"])
        assert row["tags"] == "a;b"


def test_history_is_complete_and_reads_back_as_what_is_stored(
    client: Client, store: Store, sweep: Sweep
) -> None:
    rows = table(client, "history", sweep.id)
    with store.read() as session:
        ids = list(session.scalars(select(RunRow.id)))
        stored = {metric: read_metric(session, ids, metric) for metric in ("eval_loss", "train_loss")}
    assert len(rows) == 144 * (5 + 4)
    seen: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        seen.setdefault((row["run_id"], row["metric"]), []).append((int(row["step"]), float(row["value"])))
    for (run_id, metric), points in seen.items():
        series = stored[metric][run_id]
        assert [step for step, _ in points] == series.steps.tolist()
        np.testing.assert_array_equal(
            np.array([value for _, value in points], dtype=np.float32), series.values
        )


def test_history_equals_the_curves(client: Client, sweep: Sweep) -> None:
    rows = table(client, "history", sweep.id)
    by_run: dict[str, list[float | None]] = {}
    for row in rows:
        if row["metric"] == "eval_loss":
            value = float(row["value"])
            by_run.setdefault(row["run_id"], []).append(value if math.isfinite(value) else None)
    for curve in client.curves(sweep.id, "eval_loss", points=10_000).curves:
        assert curve.value == by_run[curve.run_ids[0]]


def test_cells_equal_the_api(client: Client, sweep: Sweep) -> None:
    rows = table(client, "cells", sweep.id)
    cells = client.cells(sweep.id).cells
    assert len(rows) == len(cells) == 72
    for row, cell in zip(rows, cells, strict=True):
        for name in ("alpha", "lr", "mean", "std", "ci_low", "ci_high"):
            value = getattr(cell, name)
            assert row[name] == ("" if value is None else repr(value))
        assert int(row["num_diverged"]) == cell.num_diverged


@pytest.mark.parametrize("target", ["alpha", "lr"])
def test_optima_and_law_equal_the_api(target: Any, client: Client, sweep: Sweep) -> None:
    laws = client.law(sweep.id, target=target).laws
    assert laws
    optima = [row for row in table(client, "optima", sweep.id) if row["target"] == target]
    expected = [optimum for law in laws for optimum in law.optima]
    assert len(optima) == len(expected)
    for row, optimum in zip(optima, expected, strict=True):
        assert float(row["alpha_star"]) == optimum.value
        assert row["censored"] == optimum.censored
        assert row["lr"] == text_cell(optimum.lr)
    rows = [row for row in table(client, "law", sweep.id) if row["target"] == target]
    assert len(rows) == len(laws)
    for row, law in zip(rows, laws, strict=True):
        assert row["exponent"] == text_cell(law.fit.exponent if law.fit else None)
        assert int(row["num_censored"]) == law.num_censored


def test_the_horizon_equals_the_api(client: Client, worker: Any) -> None:
    axes = {"ranks": [1, 4, 16], "alphas": [16.0, 64.0, 256.0], "lrs": [1e-4, 2e-4, 4e-4], "seeds": [0, 1]}
    sweep = client.create_sweep({"workload": "mlp", "steps": 100, **axes})
    worker.work(points=3)
    rows = table(client, "horizon", sweep.id)
    horizons = [h for target in ("alpha", "lr") for h in client.horizon(sweep.id, target=target).horizons]
    points = [(horizon, point) for horizon in horizons for point in horizon.points]
    assert len(points) == len(rows) > 4
    assert {row["metric"] for row in rows} == {"eval_loss"}
    for row, (horizon, point) in zip(rows, points, strict=True):
        for name in ("method", "lr", "alpha", "lr_ratio", "target"):
            assert row[name] == text_cell(getattr(horizon, name))
        for name in set(PROMISED["horizon"].split(", ")[7:]) - {"reasons"}:
            assert row[name] == text_cell(getattr(point, name)), name
        assert row["reasons"] == ";".join(point.reasons)


def test_verdicts_and_what_would_decide_them_equal_the_api(client: Client, sweep: Sweep) -> None:
    items = client.equivalence(sweep.id).items
    rows = table(client, "verdicts", sweep.id)
    assert len(rows) == len(items) == 3
    for row, item in zip(rows, items, strict=True):
        for name in ("difference", "low", "high", "gap", "gap_low", "gap_high", "error"):
            assert row[name] == text_cell(getattr(item, name))
        assert (row["verdict"], row["limits"]) == (item.verdict, ";".join(item.limits))
    expected = [run for item in items for cell in item.deciding_cells for run in cell.configurations]
    assert expected
    found = [{name: row[name] for name in expected[0]} for row in table(client, "deciding", sweep.id)]
    assert found == [{name: text_cell(value) for name, value in run.items()} for run in expected]


def test_collapse_equals_the_api(client: Client, worker: Any) -> None:
    request = SweepRequest(
        workload="mlp",
        ranks=[1, 4, 16],
        alphas=[16, 32, 64, 128, 256],
        lrs=[1e-4, 4e-4, 1.6e-3],
        seeds=[0, 1, 2],
        steps=50,
    )
    sweep = client.create_sweep(request)
    worker.work(
        lambda c: 2 + 0.1 * math.log2((c.alpha or 1) * c.lr / 0.03) ** 2 + 1e-3 * math.sin(c.alpha * c.seed)
    )
    answer = client.collapse(sweep.id)
    (fit,) = answer.fits
    assert fit.alpha is not None
    assert fit.rank is not None
    assert fit.fitted is not None
    *named, fitted = table(client, "collapse", sweep.id)
    assert [(row["coordinate"], float(row["score"])) for row in named] == [
        (item.coordinate, item.score) for item in answer.items
    ]
    assert [row["behind_low"] for row in named] == [text_cell(item.behind_low) for item in answer.items]
    assert float(fitted["alpha_exponent_low"]) == fit.alpha.low
    assert float(fitted["rank_exponent_high"]) == fit.rank.high
    assert {row["verdict"] for row in [*named, fitted]} == {answer.verdict} == {"η·α"}
    points = [point for item in [*answer.items, fit.fitted] for point in item.points]
    rows = table(client, "collapse_points", sweep.id)
    assert [(float(row["x"]), float(row["level"])) for row in rows] == [(p.x, p.level) for p in points]


def test_several_sweeps_and_all_sweeps(client: Client, sweep: Sweep) -> None:
    other = client.create_sweep({"workload": "mlp", "ranks": [1], "alphas": [1], "seeds": [0]})
    assert len(table(client, "runs", other.id)) == 1
    assert len(table(client, "runs", f"{sweep.id},{other.id}")) == 145
    assert len(table(client, "runs")) == 145


def test_an_unknown_sweep_or_export_is_refused_before_anything_is_sent(http: Any) -> None:
    assert http.get("/api/export/runs.csv", params={"sweep": "zzz"}).status_code == 404
    answer = http.get("/api/export/secrets.csv")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_cell_is_a_formula(start: str, client: Client) -> None:
    name = f'{start}HYPERLINK("http://evil.example","x")'
    run = client.ingest_run(
        {"name": name, "lr": 1e-4, "rank": 4, "alpha": 8, "steps": 10, "tags": [f"{start}1", "b"]}
    )
    (row,) = table(client, "runs", run.sweep_id)
    assert row["name"] == f"'{name}"
    assert row["tags"] == f"'{start}1;b"


def test_numbers_are_not_taken_for_formulas() -> None:
    assert text_cell(-0.5) == "-0.5"
    assert text_cell(float("-inf")) == "-inf"


def test_non_finite_points_are_kept(client: Client) -> None:
    run = client.ingest_run({"lr": 1e-4, "rank": 4, "alpha": 8, "steps": 10})
    series = [{"metric": "eval_loss", "steps": [1, 2, 3], "values": [1.0, None, 1e300]}]
    client.ingest_points(run.id, {"series": series})
    values = [row["value"] for row in table(client, "history", run.sweep_id)]
    assert values == ["1.0", "nan", "inf"]


def test_probes_give_a_row_a_number_and_say_why_there_is_none(
    client: Client, store: Store, settings: Settings, sweep: Sweep
) -> None:
    done = client.create_probe({"workload": "mlp", "rank": 4, "alpha": 64})
    failed = client.create_probe({"workload": "mlp", "rank": 4, "alpha": 64, "kind": "trace"})
    rows = [{"kind": "lambda_max", "index": 0, "value": 0.1 + 0.2, "error": 1e-9}]
    with store.write() as session:
        session.execute(
            update(ProbeRow).where(ProbeRow.id == done.id).values(state="finished", result={"rows": rows})
        )
        session.execute(
            update(ProbeRow).where(ProbeRow.id == failed.id).values(state="failed", error="=out of memory")
        )
    found = {row["probe_id"]: row for row in table(client, "probes")}
    assert found[done.id]["value"] == repr(0.1 + 0.2)
    assert found[done.id]["kind"] == "lambda_max"
    assert found[failed.id]["value"] == ""
    assert found[failed.id]["error"] == "'=out of memory"
    assert table(client, "probes", sweep.id) == []


def test_every_float32_survives_its_decimals() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    special = np.array([0, -0.0, 1e-45, 3.4028235e38, 1.1754944e-38, np.inf, -np.inf, np.nan], np.float32)
    values = np.concatenate([bits, rng.normal(size=100_000).astype(np.float32), special])
    with np.errstate(invalid="ignore"):
        decimals = np.array(decimal_values(values))
        np.testing.assert_array_equal(decimals.astype(np.float32), values)
    usual = decimal_values(rng.normal(size=1000).astype(np.float32))
    assert max(len(repr(value).lstrip("-")) for value in usual) <= 15


def test_the_export_is_sent_while_it_is_read(client: Client, store: Store, http: Any) -> None:
    run = client.ingest_run({"lr": 1e-4, "rank": 4, "alpha": 8, "steps": 100_000})
    with store.write() as session:
        append_points(session, run.id, "x", steps=np.arange(50_000), values=np.ones(50_000), token=0, now=NOW)
    with http.stream("GET", "/api/export/history.csv") as answer:
        assert "content-length" not in answer.headers
        assert answer.headers["content-disposition"] == 'attachment; filename="history.csv"'
        assert sum(block.count(b"\n") for block in answer.iter_bytes()) == 50_001


def test_rules_and_advice_are_those_of_the_api(client: Client, sweep: Sweep) -> None:
    rules = table(client, "rules", sweep.id)
    costs = [cost for law in client.law(sweep.id).laws for cost in law.rules]
    assert [row["rule"] for row in rules] == [cost.rule for cost in costs]
    assert [row["regret"] for row in rules] == [text_cell(cost.regret) for cost in costs]
    advice = table(client, "advice", sweep.id)
    assert len(advice) == 9
    assert all((row["alpha"] == "") == bool(row["reason"]) for row in advice)
    for row in [row for row in advice if not row["reason"]][:1]:
        card = client.recommend(sweep.id, rank=int(row["rank"]), lr=float(row["lr"]))
        names = ("alpha", "scale", "alpha_low", "basin_high", "alpha_estimate", "kappa")
        assert [row[name] for name in names] == [text_cell(getattr(card, name)) for name in names]
