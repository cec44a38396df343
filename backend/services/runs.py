"""Use cases of runs: list, read, log, curves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session
from tsdownsample import MinMaxLTTBDownsampler

from backend.pages import decode_cursor, encode_cursor
from backend.services.outcomes import schedule_label
from backend.services.presenters import show_runs
from backend.store.engines import Store
from backend.store.metrics import Series, decimal_values, list_metrics, read_metric
from backend.store.sweeps import find_run
from backend.store.tables import JobRow, RunRow
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.metrics import guess_goal
from lora_alpha.spec import METRIC_NAME
from lora_alpha.wire.sweeps import Curve, Curves, Page, Run

SORTABLE = (
    "position",
    "name",
    "state",
    "method",
    "rank",
    "alpha",
    "scale",
    "lr",
    "seed",
    "step",
    "final_loss",
    "best_loss",
    "best_step",
    "forgetting",
    "started",
    "finished",
)
AXES = ("method", "rank", "alpha", "scale", "lr", "lr_ratio", "alpha_schedule", "seed")
GROUPINGS: dict[str, tuple[str, ...]] = {
    "run": (*AXES, "run"),
    "cell": ("method", "rank", "alpha", "scale", "lr", "lr_ratio", "alpha_schedule"),
}
MAX_POINTS = 10_000
MAX_METRICS = 64  # of one answer


def listing(
    store: Store,
    *,
    filters: Mapping[str, Any],
    sort: str,
    cursor: str | None,
    limit: int,
) -> Page[Run]:
    """Runs that match every filter, in the order of ``sort``.

    That is a column or a metric of the runs' summaries, ``-`` before it for descending.

    Raises:
        InvalidSpec: If ``sort`` is neither or the cursor is not from this listing.
    """
    descending, name = sort.startswith("-"), sort.removeprefix("-")
    column = getattr(RunRow, name) if name in SORTABLE else _summary_column(sort, name)
    # The value as the database compares it: a cursor made of it means the same row again.
    query = select(RunRow, column).where(*_conditions(filters))
    nulls_last = column.is_(None)
    query = query.order_by(nulls_last, column.desc() if descending else column, RunRow.id)
    if cursor:
        query = query.where(_after(column, cursor, descending=descending))
    with store.read() as session:
        if name not in SORTABLE and guess_goal(name) is None:
            _check_held(session, column, filters, sort)
        rows = list(session.execute(query.limit(limit + 1)))
        page = rows[:limit]
        more = len(rows) > limit
        return Page(
            items=show_runs(session, [row for row, _ in page]),
            next=encode_cursor(page[-1][1], page[-1][0].id) if more else None,
        )


def _summary_column(sort: str, name: str) -> ColumnElement[Any]:
    """A metric of the summary as a column: NULL of runs that have none."""
    if not re.fullmatch(METRIC_NAME, name):
        raise _unsortable(sort)
    column: ColumnElement[Any] = RunRow.summary[name].as_float()
    return column


def _check_held(session: Session, column: ColumnElement[Any], filters: Mapping[str, Any], sort: str) -> None:
    """A name that does not sound like a metric must be one of some run: it may be a misspelt column."""
    runs = select(RunRow.id).where(*_conditions(filters), column.is_not(None))
    if session.scalar(runs.limit(1)) is None:
        raise _unsortable(sort)


def _unsortable(sort: str) -> InvalidSpec:
    columns = ", ".join(SORTABLE)
    message = f"got {sort!r}: choose one of {columns}, or a metric that the summary of a run holds"
    return InvalidSpec([FieldProblem("sort", message)])


def read(store: Store, run_id: str) -> Run:
    """One run."""
    with store.read() as session:
        row = find_run(session, run_id)
        return show_runs(session, [row])[0]


def log(store: Store, run_id: str) -> str:
    """What is known about how the run went: its job's state, reason and the end of its log."""
    with store.read() as session:
        row = find_run(session, run_id)
        job = session.get(JobRow, row.job_id) if row.job_id else None
        if job is None:
            return "This run was trained elsewhere: no log is kept here."
        lines = [f"job {job.id}: {job.state}, attempt {job.attempt} of {job.max_attempts}. {job.message}"]
        lines += [job.error] if job.error else []
        return "\n".join([*lines, job.log_tail]).strip()


def curves(
    store: Store,
    *,
    filters: Mapping[str, Any],
    metric: str,
    points: int,
    group_by: str,
    from_step: int | None,
    metrics: Sequence[str] = (),
) -> Curves:
    """Metrics of many runs, at most ``points`` a curve, groups as mean ± std over their members.

    Args:
        store: The store.
        filters: As in ``listing``.
        metric: Name of the metric.
        points: Most points per curve; first and last are kept.
        group_by: ``run``, ``cell`` (seeds collapsed), or axes separated by commas.
        from_step: Only points after this step: what a live page has not drawn yet.
        metrics: In place of ``metric``: names, and beginnings of names with ``*`` behind them. Of those that
            match the first ``MAX_METRICS`` are given, in natural order; the answer names all.
    """
    axes = _grouping(group_by)
    with store.read() as session:
        rows = list(session.scalars(select(RunRow).where(*_conditions(filters)).order_by(RunRow.position)))
        ids = [row.id for row in rows]
        names = list_metrics(session, ids)
        chosen = _matching(names, metrics)[:MAX_METRICS] if metrics else [metric]
        found = {name: read_metric(session, ids, name, from_step=from_step) for name in chosen}
    drawn = []
    for name, series in found.items():
        groups: dict[tuple[Any, ...], list[RunRow]] = {}
        for row in rows:
            if row.id in series:
                groups.setdefault(tuple(_axis(row, axis) for axis in axes), []).append(row)
        for key, members in groups.items():
            drawn.append(_curve(name, dict(zip(axes, key, strict=True)), members, series, points))
    ends = [int(part.steps[-1]) for series in found.values() for part in series.values() if len(part.steps)]
    return Curves(
        metric="" if metrics else metric,
        metrics=names,
        curves=drawn,
        last_step=max(ends, default=from_step or 0),
    )


def _matching(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Of ``names`` those that are wanted, numbers inside a name in the order of their size."""
    exact = set(wanted)
    starts = tuple(text.removesuffix("*") for text in wanted if text.endswith("*"))
    return sorted((name for name in names if name in exact or name.startswith(starts)), key=_natural)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"[./]", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _curve(
    metric: str, labels: dict[str, Any], members: Sequence[RunRow], series: Mapping[str, Series], points: int
) -> Curve:
    key = "-".join(str(value) for value in labels.values())
    labels.pop("run", None)
    diverged = any(row.diverged for row in members)
    ids = [row.id for row in members]
    if len(members) == 1:
        only = series[ids[0]]
        keep = downsample(only.steps, only.values, points)
        return Curve(
            key=key,
            run_ids=ids,
            labels=labels,
            step=only.steps[keep].tolist(),
            value=_numbers(only.values[keep]),
            n=[1] * len(keep),
            diverged=diverged,
            metric=metric,
        )
    steps, table = _align([series[run_id] for run_id in ids])
    count = np.isfinite(table).sum(axis=0)
    filled = np.where(np.isfinite(table), table, 0.0)
    mean = np.divide(filled.sum(axis=0), count, out=np.full(len(steps), np.nan), where=count > 0)
    spread = (np.where(np.isfinite(table), table - mean, 0.0) ** 2).sum(axis=0)
    variance = np.divide(spread, count - 1, out=np.full(len(steps), np.nan), where=count > 1)
    keep = downsample(steps, mean, points)
    return Curve(
        key=key,
        run_ids=ids,
        labels=labels,
        step=steps[keep].tolist(),
        value=_numbers(mean[keep]),
        std=_numbers(np.sqrt(variance[keep])),
        n=count[keep].tolist(),
        diverged=diverged,
        metric=metric,
    )


def downsample(steps: NDArray[np.int64], values: NDArray[np.floating], points: int) -> NDArray[np.int64]:
    """Indices of at most ``points`` points by MinMaxLTTB, first and last kept, gaps (NaN) included."""
    if len(steps) <= points:
        return np.arange(len(steps))
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) <= points:
        chosen = finite
    else:
        x = np.ascontiguousarray(steps[finite], dtype=np.int64)
        y = np.ascontiguousarray(values[finite], dtype=np.float64)
        chosen = finite[MinMaxLTTBDownsampler().downsample(x, y, n_out=max(3, points))]
    return np.unique(np.concatenate([[0], chosen, [len(steps) - 1]])).astype(np.int64)


def _align(parts: Sequence[Series]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    steps = np.unique(np.concatenate([part.steps for part in parts]))
    table = np.full((len(parts), len(steps)), np.nan)
    for row, part in zip(table, parts, strict=True):
        row[np.searchsorted(steps, part.steps)] = part.values
    return steps, table


def _numbers(values: NDArray[np.floating]) -> list[float | None]:
    """Stored values as the CSV gives them; what is not finite as null."""
    numbers = decimal_values(values) if values.dtype == np.float32 else values.tolist()
    return [value if math.isfinite(value) else None for value in numbers]


def _grouping(group_by: str) -> tuple[str, ...]:
    if group_by in GROUPINGS:
        return GROUPINGS[group_by]
    axes = tuple(axis.strip() for axis in group_by.split(",") if axis.strip())
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or not axes:
        allowed = ", ".join(("run", "cell", *AXES))
        raise InvalidSpec([FieldProblem("group_by", f"got {group_by!r}: choose from {allowed}")])
    return axes


def _axis(row: RunRow, axis: str) -> Any:
    if axis == "run":
        return row.id
    if axis == "alpha_schedule":
        return schedule_label(row)
    return row.configuration.get("lr_ratio", 1.0) if axis == "lr_ratio" else getattr(row, axis)


def _conditions(filters: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    columns = {"sweep": RunRow.sweep_id, "run": RunRow.id}
    conditions = []
    for name, value in filters.items():
        if value is None or value == []:
            continue
        column = columns.get(name, getattr(RunRow, name, None))
        assert column is not None, f"routes offer no filter {name}"
        conditions.append(column.in_(value) if isinstance(value, list) else column == value)
    return conditions


def _after(column: Any, cursor: str, *, descending: bool) -> ColumnElement[bool]:
    """Rows behind the cursor's: nulls come last whichever way the rest is sorted."""
    value, run_id = decode_cursor(cursor, ((int, float, str, type(None)), str))
    if value is None:
        return and_(column.is_(None), RunRow.id > run_id)
    beyond = column < value if descending else column > value
    return or_(beyond, and_(column == value, RunRow.id > run_id), column.is_(None))
