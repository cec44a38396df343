"""Reading back the CSV files that this project exports."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_alpha.importers.outside_runs import OutsideRun, Points

PARAMETERS = ("workload", "method", "rank", "alpha", "scale", "lr", "lr_ratio", "seed", "steps")


def recognises(source: Path) -> bool:
    """A folder with ``runs.csv``, or that file itself, with our columns."""
    runs = _runs_file(source)
    if not runs.is_file() or runs.suffix != ".csv":
        return False
    with runs.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    return {"run_id", "sweep_id", "rank", "alpha", "lr"} <= set(header)


def read(source: Path) -> Iterator[OutsideRun]:
    """Every run that ended, with the curves of ``history.csv`` beside it."""
    runs = _runs_file(source)
    curves = _curves(runs.with_name("history.csv"))
    with runs.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["state"] not in {"finished", "failed"}:
                continue
            yield OutsideRun(
                key=f"{row['sweep_id']}/{row['run_id']}",
                name=row["name"],
                parameters={name: row.get(name) for name in PARAMETERS},
                points=curves.get(row["run_id"], {}),
                state=row["state"],
                summary=_summary(row),
                **_metric(row),
            )


def _summary(row: dict[str, str]) -> dict[str, float]:
    """The last values that the table has; steps to a target are no value of the metric."""
    summary = {}
    if row.get("value") and not row.get("steps_to") and not row.get("at_step"):
        summary[row["metric"]] = float(row["value"])
    if row["final_loss"] and row.get("metric") != "train_loss":
        summary["eval_loss"] = float(row["final_loss"])
    if row.get("forgetting"):
        summary["forgetting_loss"] = float(row["forgetting"])
    return summary


def _metric(row: dict[str, str]) -> dict[str, Any]:
    """What α was chosen by, where that is not the held-out loss."""
    if row.get("metric", "eval_loss") == "eval_loss" or row.get("steps_to"):
        return {}
    return {"metric": row["metric"], "goal": row["goal"]}


def _runs_file(source: Path) -> Path:
    return source / "runs.csv" if source.is_dir() else source


def _curves(path: Path) -> dict[str, Points]:
    curves: dict[str, Points] = {}
    if not path.is_file():
        return curves
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            value = float(row["value"]) if row["value"] else float("nan")
            curves.setdefault(row["run_id"], {}).setdefault(row["metric"], []).append(
                (int(row["step"]), value)
            )
    return curves
