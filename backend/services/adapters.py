"""Use cases of trained adapters: a run's adapter as a PEFT folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from backend.home import Home
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.sweeps import find_run, find_sweep
from backend.store.tables import RunRow
from lora_alpha.catalog import workload_info
from lora_alpha.errors import Conflict, NotFound
from lora_alpha.peft_format.export import PeftAdapter, read_run_adapter, to_peft, write_zip

SPOOL_BYTES = 16 * 2**20  # archives up to this size stay in memory


def export(store: Store, settings: Settings, run_id: str) -> IO[bytes]:
    """The run's adapter as a zip of a PEFT folder, read from its start.

    Raises:
        NotFound: If the run does not exist, or its adapter's file is gone.
        Conflict: If the run has no adapter, yet or at all.
    """
    adapter = read(store, settings, run_id)
    file = SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - the caller reads and closes it
    write_zip(adapter, file)
    file.seek(0)
    return file


def read(store: Store, settings: Settings, run_id: str) -> PeftAdapter:
    """The run's adapter in PEFT's format; errors as ``export``."""
    with store.read() as session:
        run = find_run(session, run_id)
        path = _path(run, settings.files)
        train: dict[str, Any] = find_sweep(session, run.sweep_id).spec["train"]
        method = run.method
    try:
        layers = read_run_adapter(path)
    except FileNotFoundError:
        raise NotFound(f"the adapter file of run {run_id} is gone: train the run again") from None
    info = workload_info(train["workload"])
    if info.auto_class is None:
        return to_peft(layers, method=method)
    return to_peft(
        layers,
        method=method,
        base_model=train["workload_options"]["model"],
        task_type=info.task_type,
        auto_class=info.auto_class,
    )


def _path(run: RunRow, home: Home) -> Path:
    if run.adapter is None:
        reason = {
            "queued": "it has not started yet: wait for its end",
            "running": "it is still running: wait for its end",
        }.get(run.state, f"it ended as {run.state}, without weights")
        if run.job_id is None:
            reason = "it was trained elsewhere, where its weights are"
        raise Conflict(f"run {run.id} has no adapter: {reason}")
    if run.diverged:
        raise Conflict(f"run {run.id} diverged at step {run.step}: there are no trained weights to export")
    return home.at(run.adapter)
