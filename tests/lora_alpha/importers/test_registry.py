from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lora_alpha.errors import InvalidSpec, WorkloadError
from lora_alpha.importers.outside_runs import OutsideRun, to_ingest, to_points
from lora_alpha.importers.registry import import_runs, read_runs
from lora_alpha.wire.jobs import IngestPoints, IngestReceipt, IngestRun

PARAMS = {"lora_r": "8", "lora_alpha": "64", "learning_rate": "0.0002", "seed": "3", "dataset_name": "gsm8k"}


class Recorder:
    """Stands in for the client: keeps what it is sent, knows keys and steps."""

    def __init__(self) -> None:
        self.runs: dict[str, IngestRun] = {}
        self.points: dict[str, dict[str, dict[int, float | None]]] = {}
        self.states: dict[str, str | None] = {}

    def ingest_run(self, request: IngestRun) -> Any:
        assert request.key is not None
        self.runs[request.key] = request
        return type("Run", (), {"id": request.key, "name": request.name})

    def ingest_points(self, run_id: str, request: IngestPoints) -> IngestReceipt:
        stored = self.points.setdefault(run_id, {})
        before = sum(map(len, stored.values()))
        for series in request.series:
            for step, value in zip(series.steps, series.values, strict=True):
                stored.setdefault(series.metric, {}).setdefault(step, value)
        self.states[run_id] = request.state
        added = sum(map(len, stored.values())) - before
        return IngestReceipt(id=run_id, state="finished", num_added=added, num_known=0)


def imported(source: Path) -> tuple[Recorder, list[str]]:
    recorder = Recorder()
    lines = list(import_runs(recorder, source))  # type: ignore[arg-type]
    return recorder, lines


def write_mlflow_folder(root: Path, *, params: dict[str, str], losses: list[float]) -> Path:
    run = root / "mlruns" / "1" / "abc"
    for name in ("params", "metrics/eval"):
        (run / name).mkdir(parents=True)
    (root / "mlruns" / "1" / "meta.yaml").write_text("name: demo\n")
    (run / "meta.yaml").write_text("run_id: abc\nrun_name: first\nstatus: 3\nlifecycle_stage: active\n")
    for name, value in params.items():
        (run / "params" / name).write_text(value)
    lines = [f"17{step:02d} {loss} {step * 10}" for step, loss in enumerate(losses)]
    (run / "metrics" / "eval" / "loss").write_text("\n".join(lines))
    return root / "mlruns"


def write_mlflow_database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE runs (run_uuid, name, status, lifecycle_stage, start_time)")
        store.execute("CREATE TABLE params (run_uuid, key, value)")
        store.execute("CREATE TABLE metrics (run_uuid, key, value, timestamp, step, is_nan)")
        for run_id, stage in (("abc", "active"), ("gone", "deleted")):
            store.execute("INSERT INTO runs VALUES (?, 'first', 'FINISHED', ?, 1)", [run_id, stage])
            store.executemany("INSERT INTO params VALUES (?, ?, ?)", [(run_id, *p) for p in PARAMS.items()])
            points = [(run_id, "eval_loss", 2.0, 1, 0, 0), (run_id, "eval_loss", 0.0, 2, 10, 1)]
            store.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", points)
    return path


def test_mlflow_folder(tmp_path: Path) -> None:
    store = write_mlflow_folder(tmp_path, params=PARAMS, losses=[2.0, 1.5, 1.25])
    recorder, lines = imported(store)
    run = recorder.runs["abc"]
    assert (run.rank, run.alpha, run.lr, run.seed, run.workload) == (8, 64.0, 2e-4, 3, "gsm8k")
    assert run.steps == 20
    assert recorder.points["abc"] == {"eval_loss": {0: 2.0, 10: 1.5, 20: 1.25}}
    assert recorder.states["abc"] == "finished"
    assert lines[-1] == "1 runs imported, 0 left out"


def test_mlflow_database_keeps_nan_and_leaves_deleted_runs(tmp_path: Path) -> None:
    recorder, _ = imported(write_mlflow_database(tmp_path / "mlflow.db"))
    assert list(recorder.runs) == ["abc"]
    assert recorder.points["abc"] == {"eval_loss": {0: 2.0, 10: None}}


def test_a_spoilt_metric_file_is_named_with_its_line(tmp_path: Path) -> None:
    store = write_mlflow_folder(tmp_path, params=PARAMS, losses=[2.0])
    (store / "1" / "abc" / "metrics" / "eval" / "loss").write_text("1 2.0 0\nnonsense\n")
    with pytest.raises(WorkloadError, match="loss:2: got 'nonsense'"):
        list(read_runs(store))


def test_wandb_runs_table(tmp_path: Path) -> None:
    file = tmp_path / "wandb_export.csv"
    file.write_text(
        '"Name","State","ID","peft_config.default.r","peft_config.default.lora_alpha","learning_rate","eval/loss"\n'
        '"bright-sun","finished","x1","16","128","1e-4","0.75"\n'
        '"dim-moon","crashed","x2","16","","1e-4","0.9"\n'
    )
    recorder, lines = imported(file)
    assert list(recorder.runs) == ["x1"]
    run = recorder.runs["x1"]
    assert (run.rank, run.alpha, run.lr) == (16, 128.0, 1e-4)
    assert "left out dim-moon" in lines[1]
    assert "lora_alpha" in lines[1]
    assert lines[-1] == "1 runs imported, 1 left out"


def test_wandb_panel_reads_parameters_from_names_or_from_the_table_beside(tmp_path: Path) -> None:
    panel = tmp_path / "panel.csv"
    panel.write_text(
        '"Step","r16-a64-lr2e-4-s3 - eval/loss","r16-a64-lr2e-4-s3 - eval/loss__MIN","named - eval/loss"\n'
        "0,2.0,2.0,3.0\n10,1.0,1.0,\n20,0.5,0.5,2.5\n"
    )
    (tmp_path / "panel.runs.csv").write_text("Name,lora_r,lora_alpha,lr\nnamed,4,32,1e-3\n")
    recorder, _ = imported(panel)
    by_name = recorder.runs["r16-a64-lr2e-4-s3"]
    assert (by_name.rank, by_name.alpha, by_name.lr, by_name.seed) == (16, 64.0, 2e-4, 3)
    assert (recorder.runs["named"].rank, recorder.runs["named"].lr) == (4, 1e-3)
    assert recorder.points["named"] == {"eval_loss": {0: 3.0, 20: 2.5}}
    assert recorder.points["r16-a64-lr2e-4-s3"] == {"eval_loss": {0: 2.0, 10: 1.0, 20: 0.5}}


def test_own_export_comes_back_as_it_went_out(tmp_path: Path) -> None:
    runs = [
        {
            "run_id": "a",
            "sweep_id": "s",
            "name": "r4-a8",
            "state": "finished",
            "workload": "mlp",
            "method": "lora",
        }
        | {"rank": 4, "alpha": 8.0, "scale": 2.0, "lr": 1e-3, "seed": 1, "steps": 20, "final_loss": 0.5},
        {
            "run_id": "b",
            "sweep_id": "s",
            "name": "full",
            "state": "finished",
            "workload": "mlp",
            "method": "full",
        }
        | {"rank": "", "alpha": "", "scale": "", "lr": 1e-3, "seed": 1, "steps": 20, "final_loss": ""},
        {"run_id": "c", "sweep_id": "s", "name": "r4-a9", "state": "cancelled", "workload": "mlp"},
    ]
    (tmp_path / "runs.csv").write_text(csv_text(runs))
    history = [
        {"run_id": "a", "metric": "eval_loss", "step": step, "time": 0, "value": value}
        for step, value in ((0, 1.0), (20, 0.5))
    ]
    (tmp_path / "history.csv").write_text(csv_text(history))
    recorder, _ = imported(tmp_path)
    assert set(recorder.runs) == {"s/a", "s/b"}
    assert recorder.points["s/a"] == {"eval_loss": {0: 1.0, 20: 0.5}}
    assert recorder.runs["s/b"].method == "full"
    assert recorder.runs["s/b"].rank is None


def csv_text(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_what_is_no_known_source_is_said(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "file.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidSpec, match="does not exist" if content is None else "is none of"):
        read_runs(file)


def test_many_points_go_in_bounded_requests() -> None:
    points = {
        "eval_loss": [(step, 1.0) for step in range(45_000)],
        "grad_norm": [(step, 2.0) for step in range(10)],
    }
    requests = list(to_points(OutsideRun("k", "k", {}, points)))
    assert [sum(len(s.steps) for s in request.series) for request in requests] == [20_000, 20_000, 5_010]
    assert [request.state for request in requests] == [None, None, "finished"]


@pytest.mark.parametrize(
    ("parameters", "method"),
    [
        ({"use_dora": True}, "dora"),
        ({"use_rslora": "True"}, "rslora"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"peft_type": "LORA"}, "lora"),
    ],
)
def test_the_method_is_read_from_peft_options(parameters: dict[str, Any], method: str) -> None:
    run = OutsideRun("k", "k", {"r": 4, "lora_alpha": 8, "lr": 1e-3, **parameters})
    assert to_ingest(run, sweep_name="s").method == method
