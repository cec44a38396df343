"""The law over the horizon: every run read at many steps, its curve read from the store once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from backend.services.outcomes import Reading, outcome, said
from backend.services.readings import Value, values_at
from backend.services.sweep_metrics import Chosen, choose_metric
from backend.store.engines import Store
from backend.store.metrics import Series, read_metric
from backend.store.sweeps import AnyRun, find_sweep, read_runs
from lora_alpha.analysis.cells import Cell, make_cells
from lora_alpha.analysis.horizon import (
    Training,
    laws_over_horizon,
    no_horizon_reasons,
    recorded_before,
    spread_steps,
)
from lora_alpha.analysis.optimum import Target
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.wire.analysis import Horizons

NOTHING = Value(None)


@dataclass(frozen=True)
class Curves:
    """What a sweep's runs recorded, read in one transaction and used after its end."""

    runs: Sequence[AnyRun]
    chosen: Chosen
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

    Raises:
        NotFound: If there is no such sweep.
        InvalidSpec: If it did not record the metric, or steps to a target are asked for.
    """
    if reading.steps_to is not None:
        given = f"got {reading.steps_to:g}: a horizon reads the metric itself, step by step; leave it out"
        raise InvalidSpec([FieldProblem("steps_to", given)])
    with store.read() as session:
        curves = read_curves(session, sweep_id, reading, target=target, fixed=fixed)
    recorded = curves.up_to(reading.at_step)
    chosen = recorded_before(steps, recorded) if steps else spread_steps(recorded)
    cells_at = dict(cells_over_steps(curves, chosen, reading))
    horizons = laws_over_horizon(cells_at, curves.training, target=target)
    return Horizons(
        **said(sweep_id, reading, metric=curves.chosen.metric, notes=curves.chosen.notes),
        steps=chosen,
        horizons=horizons,
        reasons=no_horizon_reasons(cells_at, horizons, target=target),
        warnings=curves.training.conditions(chosen),
    )


def read_curves(
    session: Session,
    sweep_id: str,
    reading: Reading,
    *,
    target: Target = "alpha",
    fixed: float | None = None,
) -> Curves:
    """Runs and evaluations of a sweep, of those at one lr (or α) if ``fixed`` is given."""
    sweep = find_sweep(session, sweep_id)
    axis = "lr" if target == "alpha" else "alpha"
    everyone = read_runs(session, sweep_id)
    chosen = choose_metric(session, sweep, everyone, name=reading.metric, goal=reading.goal)
    runs = [run for run in everyone if fixed is None or _close(getattr(run, axis), fixed)]
    series = read_metric(session, [run.id for run in runs], chosen.metric.name)
    return Curves(runs, chosen, series, training_of(sweep.spec))


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
    metric = curves.chosen.metric
    values = values_at(curves.series, steps, metric, reading.objective)
    nothing = [NOTHING] * len(steps)
    for place, step in enumerate(steps):
        there = replace(reading, at_step=step)
        outcomes = (outcome(run, values.get(run.id, nothing)[place], there) for run in curves.runs)
        yield step, make_cells(outcomes, metric=metric)
