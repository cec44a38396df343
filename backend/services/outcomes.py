"""From the runs of a sweep to the cells that the analysis works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from backend.store.metrics import read_metric
from backend.store.tables import RunRow
from lora_alpha.analysis.cells import CONSTANT, Cell, RunOutcome, Status, make_cells
from lora_alpha.spec import AlphaSchedule, Objective

STATUS: dict[str, Status] = {
    "finished": "finished",
    "queued": "pending",
    "running": "pending",
    "failed": "failed",
    "cancelled": "failed",
    "lost": "failed",
}


# What the analysis reads of a run: a row of these columns is as good as a ``RunRow``.
COLUMNS = (
    *(RunRow.id, RunRow.state, RunRow.diverged, RunRow.step, RunRow.configuration),
    *(RunRow.method, RunRow.rank, RunRow.alpha, RunRow.scale, RunRow.lr, RunRow.seed),
    *(RunRow.final_loss, RunRow.best_loss, RunRow.forgetting),
)
Run = RunRow | Row[Any]


@dataclass(frozen=True)
class Reading:
    """Which loss of a run counts: ``final`` or ``best``, at the end or at ``at_step``."""

    objective: Objective = "final"
    at_step: int | None = None


def sweep_cells(session: Session, sweep_id: str, reading: Reading) -> list[Cell]:
    """The cells of a sweep under ``reading``."""
    runs = sweep_runs(session, sweep_id)
    losses = _losses(session, runs, reading)
    return make_cells(
        outcome(
            run,
            loss=losses.get(run.id),
            status=_status(run, losses.get(run.id), reading),
            diverged=run.diverged and not _read_before_divergence(run, losses.get(run.id), reading),
        )
        for run in runs
    )


def sweep_runs(session: Session, sweep_id: str) -> Sequence[Run]:
    """The runs of a sweep in its order."""
    # Columns, not objects: of 10,000 runs they come in half the time.
    return session.execute(
        select(*COLUMNS).where(RunRow.sweep_id == sweep_id).order_by(RunRow.position)
    ).all()


def outcome(run: Run, *, loss: float | None, status: Status, diverged: bool) -> RunOutcome:
    """What the analysis is told of a run."""
    return RunOutcome(
        method=run.method,
        rank=run.rank,
        alpha=run.alpha,
        scale=run.scale,
        lr=run.lr,
        seed=run.seed,
        status=status,
        loss=loss,
        diverged=diverged,
        lr_ratio=run.configuration.get("lr_ratio", 1.0),
        forgetting=run.forgetting,
        alpha_schedule=schedule_label(run),
    )


def schedule_label(row: Run) -> str:
    """How the run's α moves, ``constant`` where it does not."""
    given = row.configuration.get("alpha_schedule")
    if not given or given["kind"] == CONSTANT:
        return CONSTANT
    return AlphaSchedule.model_validate(given).label


def _losses(session: Session, rows: Sequence[Run], reading: Reading) -> dict[str, float]:
    if reading.at_step is None:
        column = "final_loss" if reading.objective == "final" else "best_loss"
        values = {row.id: getattr(row, column) for row in rows if row.state == "finished"}
        return {run_id: value for run_id, value in values.items() if value is not None}
    series = read_metric(session, [row.id for row in rows], "eval_loss")
    losses = {}
    for run_id, part in series.items():
        until = part.values[: int(np.searchsorted(part.steps, reading.at_step, side="right"))]
        reached = len(until) > 0 and part.steps[-1] >= reading.at_step
        if reached and np.isfinite(until[-1]):
            losses[run_id] = float(until[-1] if reading.objective == "final" else np.nanmin(until))
    return losses


def _status(row: Run, loss: float | None, reading: Reading) -> Status:
    """A running run that has passed ``at_step`` already counts."""
    return "finished" if reading.at_step is not None and loss is not None else STATUS[row.state]


def _read_before_divergence(row: Run, loss: float | None, reading: Reading) -> bool:
    """A run that diverged later than ``at_step`` had not diverged there."""
    return reading.at_step is not None and loss is not None and row.step > reading.at_step
