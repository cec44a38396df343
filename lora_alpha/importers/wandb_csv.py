"""Reading what W&B's "export as CSV" writes: a table of runs, or the history that a panel shows."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from lora_alpha.importers.outside_runs import ALIASES, OutsideRun, flatten, is_metric, metric_name

STATES = {"finished": "finished", "failed": "failed", "crashed": "failed", "killed": "failed"}
STEPS = ("step", "_step", "train/global_step", "global_step")
# W&B names runs in a panel's export "<run> - <metric>", with the extremes of each pixel beside it.
SEPARATOR = " - "
EXTREMES = ("__MIN", "__MAX")


def recognises(source: Path) -> bool:
    """A CSV file with a ``Name`` column (runs table) or a step and "run - metric" columns (panel)."""
    if source.suffix.lower() != ".csv" or not source.is_file():
        return False
    header = _header(source)
    return "Name" in header or (
        _step_column(header) is not None and any(SEPARATOR in name for name in header)
    )


def read(source: Path) -> Iterator[OutsideRun]:
    """Runs of a table with their final values; runs of a panel with their curves.

    A panel's file has no hyperparameters: a runs table called ``runs.csv`` or ``<file>.runs.csv`` beside it
    gives them, otherwise they are read from run names like ``r16-a64-lr2e-4-s3``.
    """
    return _read_table(source) if "Name" in _header(source) else _read_panel(source)


def _read_table(source: Path) -> Iterator[OutsideRun]:
    with source.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            name = row.get("Name") or f"row {number + 1}"
            known = {alias for names in ALIASES.values() for alias in names}
            summary = {
                metric_name(column): float(value)
                for column, value in row.items()
                if column and column not in known and is_metric(column, value)
            }
            yield OutsideRun(
                key=row.get("ID") or name,
                name=name,
                parameters=flatten(dict(row)),
                state=STATES.get((row.get("State") or "finished").lower(), "running"),
                summary=summary,
            )


def _read_panel(source: Path) -> Iterator[OutsideRun]:
    parameters = _parameters_beside(source)
    header = _header(source)
    step_column = _step_column(header)
    assert step_column is not None
    runs: dict[str, OutsideRun] = {}
    columns = [name for name in header if SEPARATOR in name and not name.endswith(EXTREMES)]
    with source.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for column in columns:
                name, metric = column.rsplit(SEPARATOR, 1)
                if not _is_number(row[column]) or metric in STEPS:
                    continue
                known = parameters.get(name) or _parameters_in(name)
                run = runs.setdefault(name, OutsideRun(key=name, name=name, parameters=known))
                point = (int(float(row[step_column])), float(row[column]))
                run.points.setdefault(metric_name(metric), []).append(point)
    yield from runs.values()


def _parameters_beside(source: Path) -> dict[str, dict[str, object]]:
    for beside in (source.with_suffix(".runs.csv"), source.with_name("runs.csv")):
        if beside != source and beside.is_file() and "Name" in _header(beside):
            return {run.name: run.parameters for run in _read_table(beside)}
    return {}


def _parameters_in(name: str) -> dict[str, object]:
    """``r16-a64-lr2e-4-s3`` → rank, alpha, lr, seed."""
    found: dict[str, object] = {}
    for part in name.replace("e-", "e~").split("-"):
        text = part.replace("e~", "e-")
        for prefix, field in (("lr", "lr"), ("r", "rank"), ("a", "alpha"), ("s", "seed")):
            if text.startswith(prefix) and _is_number(text[len(prefix) :]):
                found.setdefault(field, text[len(prefix) :])
                break
    return found


def _header(source: Path) -> list[str]:
    with source.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file), [])


def _step_column(header: list[str]) -> str | None:
    lower = {name.lower(): name for name in header}
    return next((lower[name] for name in STEPS if name in lower), None)


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
