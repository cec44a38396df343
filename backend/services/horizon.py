"""The law over the horizon: every run read at many steps, its curve read from the store once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from backend.services.outcomes import STATUS, Reading, Run, outcome, sweep_runs
from backend.store.engines import Store
from backend.store.metrics import Series, read_metric
from backend.store.sweeps import find_sweep
from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.horizon import (
    Training,
    laws_over_horizon,
    no_horizon_reasons,
    recorded_before,
    spread_steps,
)
from lora_alpha.analysis.optimum import Target
from lora_alpha.wire.analysis import Horizons


@dataclass(frozen=True)
class Curves:
    """What a sweep's runs recorded, read in one transaction and used after its end."""

    runs: Sequence[Run]
    series: Mapping[str, Series]
    training: Training

    @property
    def recorded(self) -> list[int]:
        """Every step at which some run was evaluated."""
        # Runs of one pack have the same steps: of 10,000 curves few differ.
        different = {part.steps.tobytes(): part.steps for part in self.series.values()}
        steps = np.unique(np.concatenate([*different.values(), np.empty(0, np.int64)]))
        return [int(step) for step in steps]

    def up_to(self, step: int | None) -> list[int]:
        """The recorded steps, none beyond ``step``."""
        return [recorded for recorded in self.recorded if step is None or recorded <= step]


def horizon(
    store: Store,
    sweep_id: str,
    reading: Reading,
    *,
    target: Target = "alpha",
    steps: Sequence[int] = (),
    fixed: float | None = None,
) -> Horizons:
    """``GET /sweeps/{id}/horizon``.

    Args:
        store: Where the sweep is.
        sweep_id: The sweep.
        reading: Its ``at_step`` ends the horizon.
        target: As in ``fit_laws``.
        steps: Read at the last evaluations up to these; none: at up to 16 evaluations, evenly on a log scale.
        fixed: Only laws at this lr (at this α with target ``lr``).
    """
    with store.read() as session:
        curves = read_curves(session, sweep_id, target=target, fixed=fixed)
    recorded = curves.up_to(reading.at_step)
    chosen = recorded_before(steps, recorded) if steps else spread_steps(recorded)
    cells_at = dict(cells_over_steps(curves, chosen, reading))
    horizons = laws_over_horizon(cells_at, curves.training, target=target)
    return Horizons(
        sweep_id=sweep_id,
        objective=reading.objective,
        at_step=reading.at_step,
        steps=chosen,
        horizons=horizons,
        reasons=no_horizon_reasons(cells_at, horizons, target=target),
        warnings=curves.training.conditions(chosen),
    )


def read_curves(
    session: Session, sweep_id: str, *, target: Target = "alpha", fixed: float | None = None
) -> Curves:
    """Runs and evaluations of a sweep, of those at one lr (or α) if ``fixed`` is given."""
    sweep = find_sweep(session, sweep_id)
    axis = "lr" if target == "alpha" else "alpha"
    runs = [
        run for run in sweep_runs(session, sweep_id) if fixed is None or _close(getattr(run, axis), fixed)
    ]
    return Curves(runs, read_metric(session, [run.id for run in runs], "eval_loss"), training_of(sweep.spec))


def _close(value: float | None, asked: float) -> bool:
    return value is not None and math.isclose(value, asked, rel_tol=1e-9)


def training_of(spec: Mapping[str, Any]) -> Training:
    """How a sweep's runs were trained; of runs from elsewhere the schedule of η is not known."""
    train = spec["train"]
    return Training(train.get("lr_schedule"), train.get("warmup", 0), train["steps"])


def cells_over_steps(
    curves: Curves, steps: Sequence[int], reading: Reading
) -> Iterator[tuple[int, list[Cell]]]:
    """The cells of a sweep as its runs were at each of these steps."""
    values = {run_id: _values_at(part, steps, reading) for run_id, part in curves.series.items()}
    for place, step in enumerate(steps):
        yield (
            step,
            make_cells(
                _outcome_at(run, step, values[run.id][place] if run.id in values else None)
                for run in curves.runs
            ),
        )


def _values_at(series: Series, steps: Sequence[int], reading: Reading) -> list[float | None]:
    """The value in force at each step, NaN where the run had diverged, None where it had not come there."""
    until = np.searchsorted(series.steps, steps, side="right")
    values: NDArray[np.float64] = series.values.astype(np.float64)
    chosen = values if reading.objective == "final" else _best_so_far(values)
    return [
        float(chosen[place - 1]) if place > 0 and step <= series.steps[-1] else None
        for step, place in zip(steps, until, strict=True)
    ]


def _best_so_far(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest value up to each place; where a value is none the run has diverged, whatever came before."""
    return np.where(np.isfinite(values), np.fmin.accumulate(values), np.nan)


def _outcome_at(run: Run, step: int, value: float | None) -> RunOutcome:
    """A run as it was at ``step``: pending if it has yet to come there, not diverged if it did so later."""
    diverged = (run.diverged and run.step <= step) or (value is not None and not math.isfinite(value))
    status = STATUS[run.state] if value is None else "finished"
    if status == "finished" and value is None and not diverged:
        status = "failed"  # it ended without coming here
    return outcome(run, loss=None if diverged else value, status=status, diverged=diverged)
