from __future__ import annotations

from pathlib import Path

import pytest

from lora_alpha.analysis.cells import best_cell
from lora_alpha.importers.registry import import_runs
from lora_alpha.wire.client import Client


def test_imported_runs_appear_in_the_law_and_importing_twice_adds_nothing(
    tmp_path: Path, client: Client
) -> None:
    for seed in range(2):
        for rank in (2, 4, 8):
            for alpha in (16, 64, 256):
                loss = 1 + abs(alpha - 64) / 100 + 0.01 * seed
                run = tmp_path / "mlruns" / "1" / f"r{rank}a{alpha}s{seed}"
                (run / "params").mkdir(parents=True)
                (run / "metrics").mkdir()
                (run / "meta.yaml").write_text(f"run_id: {run.name}\nstatus: 3\nlifecycle_stage: active\n")
                for name, value in (("r", rank), ("lora_alpha", alpha), ("lr", 2e-4), ("seed", seed)):
                    (run / "params" / name).write_text(str(value))
                (run / "metrics" / "eval_loss").write_text(f"1 2.0 0\n2 {loss} 10\n")
    lines = list(import_runs(client, tmp_path))
    assert lines[-1] == "18 runs imported, 0 left out"
    (sweep,) = client.sweeps().items
    assert sweep.state == "finished"
    (law,) = client.law(sweep.id).laws
    assert law.num_ranks == 3
    assert law.fit is not None
    assert law.fit.exponent == pytest.approx(0, abs=0.05)
    again = list(import_runs(client, tmp_path))
    assert all("0 new points" in line for line in again[:-1])
    assert len(client.sweeps().items) == 1


def test_a_table_with_accuracies_alone_is_imported_with_accuracy_as_its_metric(
    tmp_path: Path, client: Client
) -> None:
    rows = [
        '"Name","State","ID","lora_r","lora_alpha","learning_rate","seed","eval/accuracy"',
        '"a","finished","id1","8","16","0.0002","0","0.7"',
        '"b","finished","id2","8","64","0.0002","0","0.8"',
    ]
    (tmp_path / "only-accuracy.csv").write_text("\n".join(rows))
    assert list(import_runs(client, tmp_path / "only-accuracy.csv"))[-1] == "2 runs imported, 0 left out"
    (sweep,) = client.sweeps().items
    read = client.cells(sweep.id)
    assert (read.metric.name, read.metric.goal) == ("eval/accuracy", "max")
    assert [cell.mean for cell in read.cells] == [0.7, 0.8]
    best = best_cell(read.cells)
    assert best is not None
    assert best.alpha == 64


def test_losses_of_zero_and_below_stay(tmp_path: Path, client: Client) -> None:
    rows = [
        '"Name","State","ID","lora_r","lora_alpha","learning_rate","seed","eval/loss","eval/rewards/mean"',
        '"a","finished","id1","8","16","0.0002","0","0","-3.5"',
        '"b","finished","id2","8","64","0.0002","0","-0.25","2"',
    ]
    (tmp_path / "zero.csv").write_text("\n".join(rows))
    list(import_runs(client, tmp_path / "zero.csv"))
    (sweep,) = client.sweeps().items
    assert [cell.mean for cell in client.cells(sweep.id).cells] == [0.0, -0.25]
    rewards = client.cells(sweep.id, metric="eval/rewards/mean")
    assert ([cell.mean for cell in rewards.cells], rewards.metric.goal) == ([-3.5, 2.0], "max")


def test_our_own_tables_come_back_with_the_metric_that_alpha_was_chosen_by(
    tmp_path: Path, client: Client
) -> None:
    fields = {"rank": 4, "alpha": 8, "lr": 1e-4, "steps": 3, "sweep_name": "mine"}
    run = client.ingest_run({**fields, "metric": "zest", "goal": "max"})
    client.ingest_points(run.id, {"state": "finished", "summary": {"zest": 3.0}, "forgetting": 0.5})
    (tmp_path / "runs.csv").write_bytes(b"".join(client.export_csv("runs", run.sweep_id)))
    list(import_runs(client, tmp_path))
    sweep = next(sweep for sweep in client.sweeps().items if sweep.id != run.sweep_id)
    read = client.cells(sweep.id)
    assert (read.metric.name, read.metric.goal, read.cells[0].mean) == ("zest", "max", 3.0)
