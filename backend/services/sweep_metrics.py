"""Which metrics the runs of a sweep have recorded, what they mean, and which one α is chosen by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.store.engines import Store
from backend.store.metrics import list_metrics
from backend.store.sweeps import INGESTED, find_sweep
from backend.store.tables import RunRow, SweepRow
from lora_alpha.catalog import WORKLOADS
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.metrics import EVAL_LOSS, FORGETTING, Goal, Metric, describe
from lora_alpha.wire.analysis import SweepMetrics

LOSS_OF = "loss_metric"  # in a run's configuration: what its final_loss is of, where that is not eval_loss
MAX_NAMED = 20  # metrics in a message
HELD_OUT = ("eval", "val", "test", "held")


@dataclass(frozen=True)
class Chosen:
    """A metric, and what must be said of the choice."""

    metric: Metric
    notes: tuple[str, ...] = ()


def list_sweep_metrics(store: Store, sweep_id: str) -> SweepMetrics:
    """``GET /sweeps/{id}/metrics``."""
    with store.read() as session:
        sweep = find_sweep(session, sweep_id)
        rows = list(session.scalars(select(RunRow).where(RunRow.sweep_id == sweep_id)))
        chosen = choose_metric(session, sweep, rows)
        found, unclear = meanings(sweep, recorded_names(session, rows))
    others = [metric for metric in found if metric.name != chosen.metric.name]
    return SweepMetrics(
        sweep_id=sweep_id, metric=chosen.metric, metrics=[chosen.metric, *others], unclear=unclear
    )


def choose_metric(
    session: Session,
    sweep: SweepRow,
    rows: Sequence[RunRow],
    *,
    name: str | None = None,
    goal: Goal | None = None,
) -> Chosen:
    """The metric ``name``, else the sweep's own, else the held-out loss, else whatever it has recorded.

    Raises:
        InvalidSpec: If it was recorded by no run though others were, or nobody says which way is better.
    """
    own, own_goal = sweep.spec.get("metric"), sweep.spec.get("goal")
    notes: list[str] = []
    if name is not None and name != own:
        recorded = recorded_names(session, rows)
        if recorded and name not in recorded:
            given = f"got {name!r}: the runs of this sweep recorded {_listed(recorded)}"
            raise InvalidSpec([FieldProblem("metric", given)])
    elif name is None and own is None:
        name = _default(session, sweep, rows)
        if name != EVAL_LOSS.name:
            notes.append(f"No run of this sweep has recorded eval_loss: α is chosen by {name}.")
    else:
        name, goal = own, goal or own_goal
    assert name is not None
    metric = describe(name, goal=goal, declared=declared_metrics(sweep))
    if metric.goal_from == "name":
        notes.append(f"By its name {name} is taken for a metric where {metric.better}: goal overrules it.")
    return Chosen(metric, tuple(notes))


def recorded_names(session: Session, rows: Sequence[RunRow]) -> list[str]:
    """Every metric that a run has a curve or a last value of, sorted."""
    names = set(list_metrics(session, [row.id for row in rows]))
    for row in rows:
        names |= {name for name, value in row.summary.items() if is_number(value)}
        names |= {loss_of(row)} if row.final_loss is not None else set()
        names |= {FORGETTING.name} if row.forgetting is not None else set()
    return sorted(names)


def meanings(sweep: SweepRow, names: Sequence[str]) -> tuple[list[Metric], list[str]]:
    """The metrics among ``names`` whose direction is known, and the names of the others."""
    found, unclear = [], []
    for name in names:
        try:
            found.append(describe(name, declared=declared_metrics(sweep)))
        except InvalidSpec:
            unclear.append(name)
    return found, unclear


def declared_metrics(sweep: SweepRow) -> tuple[Metric, ...]:
    """What the sweep's workload says of its metrics."""
    return WORKLOADS[sweep.workload].metrics if sweep.workload in WORKLOADS else ()


def loss_of(row: RunRow) -> str:
    """The metric that ``final_loss`` and ``best_loss`` of a run are of."""
    name: str = row.configuration.get(LOSS_OF, EVAL_LOSS.name)
    return name


def is_number(value: Any) -> bool:
    """Whether a summary's value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _default(session: Session, sweep: SweepRow, rows: Sequence[RunRow]) -> str:
    """Runs trained here have a held-out loss; others what they have: any loss, else what has a direction."""
    losses = {loss_of(row) for row in rows if row.final_loss is not None}
    if sweep.spec.get("source") != INGESTED or EVAL_LOSS.name in losses:
        return EVAL_LOSS.name
    recorded = recorded_names(session, rows)
    for name in (EVAL_LOSS.name, "train_loss"):
        if name in recorded:
            return name
    known, _ = meanings(sweep, recorded)
    names = [metric.name for metric in known if metric.name != FORGETTING.name]
    return min(names, key=lambda name: (not name.startswith(HELD_OUT), name), default=EVAL_LOSS.name)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
