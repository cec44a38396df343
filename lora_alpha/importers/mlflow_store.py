"""Reading an MLflow tracking store, a folder of files or an SQLite database, without MLflow itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from lora_alpha.errors import WorkloadError
from lora_alpha.importers.outside_runs import OutsideRun, flatten, metric_name

SQLITE = b"SQLite format 3\x00"
STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "failed"}
FILE_STATES = {3: "finished", 4: "failed", 5: "failed"}


def recognises(source: Path) -> bool:
    """An SQLite file with MLflow's tables, or a folder with ``meta.yaml`` in its experiments' runs."""
    if source.is_file():
        with source.open("rb") as file:
            if file.read(len(SQLITE)) != SQLITE:
                return False
        with closing(_connect(source)) as store:
            tables = {
                name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
        return {"runs", "params", "metrics"} <= tables
    return any(source.glob("*/*/meta.yaml")) or any(source.glob("mlruns/*/*/meta.yaml"))


def read(source: Path) -> Iterator[OutsideRun]:
    """Every run that is not deleted."""
    if source.is_file():
        return _read_database(source)
    return _read_folder(source / "mlruns" if (source / "mlruns").is_dir() else source)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _read_database(path: Path) -> Iterator[OutsideRun]:
    with closing(_connect(path)) as store:
        runs = store.execute(
            "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time"
        ).fetchall()
        for run_id, name, status in runs:
            parameters = dict(store.execute("SELECT key, value FROM params WHERE run_uuid = ?", [run_id]))
            run = OutsideRun(
                key=run_id,
                name=name or run_id,
                parameters=flatten(parameters),
                state=STATES.get(status, "running"),
            )
            rows = store.execute(
                "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY step, timestamp",
                [run_id],
            )
            for key, step, value, is_nan in rows:
                point = (int(step), float("nan") if is_nan else float(value))
                run.points.setdefault(metric_name(key), []).append(point)
            yield run


def _read_folder(folder: Path) -> Iterator[OutsideRun]:
    for meta_file in sorted(folder.glob("*/*/meta.yaml")):
        meta = _meta(meta_file)
        if meta.get("lifecycle_stage") == "deleted" or "run_id" not in meta:
            continue
        here = meta_file.parent
        run = OutsideRun(
            key=str(meta["run_id"]),
            name=str(meta.get("run_name") or meta["run_id"]),
            parameters=flatten({name: text.strip() for name, text in _texts(here / "params")}),
            state=_file_state(meta.get("status")),
        )
        for name, text in _texts(here / "metrics"):
            points = run.points.setdefault(metric_name(name), [])
            for number, line in enumerate(text.splitlines(), start=1):
                try:
                    _, value, step = line.split()[:3]
                    points.append((int(step), float(value)))
                except ValueError:
                    raise WorkloadError(
                        f"{here / 'metrics' / name}:{number}: got {line!r}, not 'timestamp value step'"
                    ) from None
        yield run


def _meta(path: Path) -> dict[str, Any]:
    meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    return meta if isinstance(meta, dict) else {}


def _file_state(status: Any) -> str:
    return (
        FILE_STATES.get(status, "running") if isinstance(status, int) else STATES.get(str(status), "running")
    )


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")
