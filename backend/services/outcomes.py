"""From the runs of a sweep to the cells that the analysis works on: which metric, read when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.services.readings import Value, read_values
from backend.services.sweep_metrics import choose_metric
from backend.store.sweeps import find_sweep
from backend.store.tables import RunRow
from lora_alpha.analysis.cells import CONSTANT, Cell, RunOutcome, Status, make_cells
from lora_alpha.metrics import FORGETTING, Goal, Metric
from lora_alpha.spec import AlphaSchedule, Objective

STATUS: dict[str, Status] = {
    "finished": "finished",
    "queued": "pending",
    "running": "pending",
    "failed": "failed",
    "cancelled": "failed",
    "lost": "failed",
}


@dataclass(frozen=True)
class Reading:
    """Which number of a run counts.

    Attributes:
        objective: The metric at the end, or the best on the way.
        at_step: Read there in place of the end.
        metric: Its name; the sweep's own unless given.
        goal: Which way is better; as the metric is declared, or called, unless given.
        steps_to: In place of the metric the steps until it is this good; fewer are better.
    """

    objective: Objective = "final"
    at_step: int | None = None
    metric: str | None = None
    goal: Goal | None = None
    steps_to: float | None = None


@dataclass(frozen=True)
class SweepRead:
    """The runs of a sweep under a reading.

    Attributes:
        metric: What the values are of, for ``steps_to`` the steps.
        notes: What a reader must know of how the metric was chosen.
        outcomes: Run id → what the analysis knows of it, in the sweep's order.
    """

    metric: Metric
    notes: tuple[str, ...]
    outcomes: Mapping[str, RunOutcome]

    @property
    def cells(self) -> list[Cell]:
        """The runs that differ in their seed alone, taken together."""
        return make_cells(self.outcomes.values(), metric=self.metric)


def read_sweep(session: Session, sweep_id: str, reading: Reading) -> SweepRead:
    """The outcome of every run of a sweep under ``reading``.

    Raises:
        NotFound: If there is no such sweep.
        InvalidSpec: If the metric was recorded by none of its runs though others were, or has no direction.
    """
    sweep = find_sweep(session, sweep_id)
    rows = list(session.scalars(select(RunRow).where(RunRow.sweep_id == sweep_id).order_by(RunRow.position)))
    chosen = choose_metric(session, sweep, rows, name=reading.metric, goal=reading.goal)
    metric = chosen.metric
    values = read_values(
        session,
        rows,
        metric,
        objective=reading.objective,
        at_step=reading.at_step,
        steps_to=reading.steps_to,
    )
    forgetting = _forgetting(session, rows, reading)
    outcomes = {row.id: _outcome(row, values.get(row.id), reading, forgetting.get(row.id)) for row in rows}
    if reading.steps_to is not None:
        sign = "≤" if metric.goal == "min" else "≥"
        metric = Metric(f"steps to {metric.name} {sign} {reading.steps_to:g}", unit="steps", has_zero=True)
    return SweepRead(metric, chosen.notes, outcomes)


def sweep_cells(session: Session, sweep_id: str, reading: Reading) -> list[Cell]:
    """The cells of a sweep under ``reading``."""
    return read_sweep(session, sweep_id, reading).cells


def schedule_label(row: RunRow) -> str:
    """How the run's α moves, ``constant`` where it does not."""
    given = row.configuration.get("alpha_schedule")
    if not given or given["kind"] == CONSTANT:
        return CONSTANT
    return AlphaSchedule.model_validate(given).label


def _outcome(row: RunRow, value: Value | None, reading: Reading, forgetting: float | None) -> RunOutcome:
    status, diverged = _how_it_went(row, value, reading)
    return RunOutcome(
        method=row.method,
        rank=row.rank,
        alpha=row.alpha,
        scale=row.scale,
        lr=row.lr,
        seed=row.seed,
        status=status,
        loss=None if value is None else value.number,
        diverged=diverged,
        lr_ratio=row.configuration.get("lr_ratio", 1.0),
        forgetting=forgetting,
        alpha_schedule=schedule_label(row),
    )


def _how_it_went(row: RunRow, value: Value | None, reading: Reading) -> tuple[Status, bool]:
    """Status and divergence when it is read: a run may count before its end, or before it diverged."""
    number = None if value is None else value.number
    if reading.steps_to is not None and number is not None:
        return "finished", False
    if reading.at_step is not None and number is not None:
        return "finished", row.diverged and row.step <= reading.at_step
    status = STATUS[row.state]
    diverged = row.diverged or (status == "finished" and value is not None and value.lost)
    if status != "finished" or number is not None or diverged:
        return status, diverged
    return ("unreached" if reading.steps_to is not None and value is not None else "unrecorded"), False


def _forgetting(session: Session, rows: Sequence[RunRow], reading: Reading) -> dict[str, float]:
    """At the step that is read, else at the end."""
    if reading.at_step is None:
        return {row.id: row.forgetting for row in rows if row.forgetting is not None}
    found = read_values(session, rows, FORGETTING, objective="final", at_step=reading.at_step)
    return {run_id: value.number for run_id, value in found.items() if value.number is not None}
