"""One number of each run: a metric at the end, at a step, at its best, or the steps until it is so good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.services.sweep_metrics import is_number, loss_of
from backend.store.metrics import Series, decimal_values, read_metric
from backend.store.tables import RunRow
from lora_alpha.metrics import EVAL_LOSS, FORGETTING, Metric
from lora_alpha.spec import Objective


@dataclass(frozen=True)
class Value:
    """What was read of a run that has recorded the metric.

    Attributes:
        number: None where there is none: not yet there, never reached, not finite.
        lost: The last value is not finite.
    """

    number: float | None
    lost: bool = False


def read_values(
    session: Session,
    rows: Sequence[RunRow],
    metric: Metric,
    *,
    objective: Objective = "final",
    at_step: int | None = None,
    steps_to: float | None = None,
) -> dict[str, Value]:
    """The value of each run that has one, or has at least recorded the metric.

    Args:
        session: The store.
        rows: Runs.
        metric: What is read, and which way is better.
        objective: The last value, or the best until then.
        at_step: Read there; without it at the end, of finished runs alone.
        steps_to: A value of the metric: read is the step at which it is first that good, see ``steps_until``.
    """
    if steps_to is None and at_step is None:
        return _at_the_end(session, rows, metric, objective)
    series = read_metric(session, [row.id for row in rows], metric.name)
    if steps_to is not None:
        return {
            run_id: Value(steps_until(part.steps, part.values, steps_to, metric=metric))
            for run_id, part in series.items()
        }
    assert at_step is not None
    return _decimals({run_id: _until(part, metric, objective, at_step) for run_id, part in series.items()})


def steps_until(
    steps: NDArray[np.int64], values: NDArray[np.floating], target: float, *, metric: Metric
) -> float | None:
    """The step at which a curve first is at ``target`` or better; None if it never is.

    Between the recorded point before and the one that is good enough the curve is taken for a straight line:
    otherwise all runs would tie at the few steps at which they were evaluated, and an optimum over α would
    be a plateau. The answer is never off by more than the distance of these two points. Points that are not
    finite are left out.

    Args:
        steps: (n,), ascending.
        values: (n,).
        target: In the metric's unit.
        metric: Says which way is better.

    >>> steps_until(np.array([0, 10, 20]), np.array([4.0, 2.0, 1.0]), 3.0, metric=EVAL_LOSS)
    5.0
    """
    kept = np.isfinite(values)
    steps, excess = steps[kept], metric.sign * (values[kept].astype(np.float64) - target)
    good = np.flatnonzero(excess <= 0)
    if not len(good):
        return None
    first = int(good[0])
    if first == 0:
        return float(steps[0])
    before, after = excess[first - 1], excess[first]
    return float(steps[first - 1] + (steps[first] - steps[first - 1]) * before / (before - after))


def _at_the_end(
    session: Session, rows: Sequence[RunRow], metric: Metric, objective: Objective
) -> dict[str, Value]:
    """Of finished runs: from columns where the loss has them, else from the curve, else from the summary."""
    ended = [row for row in rows if row.state == "finished"]
    values: dict[str, Value] = {}
    if metric.name == EVAL_LOSS.name and (objective == "final" or metric.goal == "min"):
        for row in ended:
            number = row.final_loss if objective == "final" else row.best_loss
            if number is not None and loss_of(row) == EVAL_LOSS.name:
                values[row.id] = Value(number)
        return values
    series = read_metric(session, [row.id for row in ended], metric.name)
    values = _decimals({run_id: _until(part, metric, objective) for run_id, part in series.items()})
    for row in ended:
        if row.id not in values and (number := _summary(row, metric.name)) is not None:
            values[row.id] = Value(number)
    return values


def _summary(row: RunRow, name: str) -> float | None:
    """A metric of which a run has no curve."""
    if is_number(row.summary.get(name)):
        return float(row.summary[name])
    if name == FORGETTING.name:
        return row.forgetting
    return row.final_loss if name == loss_of(row) else None


def _until(part: Series, metric: Metric, objective: Objective, at_step: int | None = None) -> float | None:
    """The last or best value up to ``at_step``: NaN if the last is not finite, None if none is so late."""
    values = part.values
    if at_step is not None:
        if part.steps[-1] < at_step:
            return None
        values = values[: int(np.searchsorted(part.steps, at_step, side="right"))]
    if not len(values):
        return None
    if not np.isfinite(values[-1]):
        return math.nan
    if objective == "best":
        finite = values[np.isfinite(values)]
        return float(finite[np.argmin(metric.sign * finite)])
    return float(values[-1])


def _decimals(found: Mapping[str, float | None]) -> dict[str, Value]:
    """The numbers as JSON and CSV give the curves that they come from."""
    known = {run_id: number for run_id, number in found.items() if number is not None}
    numbers = decimal_values(np.array(list(known.values()), dtype=np.float32))
    read = {
        run_id: Value(None, lost=True) if math.isnan(number) else Value(number)
        for run_id, number in zip(known, numbers, strict=True)
    }
    return dict.fromkeys(found, Value(None)) | read
