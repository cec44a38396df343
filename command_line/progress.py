"""Follows sweeps with one bar each: runs done, progress within runs, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

POLL_S = 0.5


def follow(client: Client, sweep_ids: Sequence[str], *, console: Console) -> list[Sweep]:
    """Draw progress until every sweep has reached a final state; return them as they ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[runs]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {
            sweep_id: bars.add_task(client.sweep(sweep_id).name or sweep_id, total=1.0, runs="", left="")
            for sweep_id in sweep_ids
        }
        while True:
            sweeps = [client.sweep(sweep_id) for sweep_id in sweep_ids]
            for sweep in sweeps:
                bars.update(tasks[sweep.id], completed=sweep.progress, runs=_runs(sweep), left=_left(sweep))
            if all(sweep.state in ENDED_SWEEPS for sweep in sweeps):
                return sweeps
            time.sleep(POLL_S)


def _runs(sweep: Sweep) -> str:
    counts = sweep.counts
    bad = counts.failed + counts.lost
    diverged = f", {counts.diverged} diverged" if counts.diverged else ""
    return f"{counts.finished}/{counts.total} runs{diverged}" + (f", {bad} failed" if bad else "")


def _left(sweep: Sweep) -> str:
    if sweep.state in ENDED_SWEEPS:
        return sweep.state
    if sweep.eta_seconds is None:
        return "estimating"
    return f"about {sweep.eta_seconds:.0f} s left"
