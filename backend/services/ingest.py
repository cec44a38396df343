"""Use cases of ingested runs: runs that are trained elsewhere and only tell how it goes.

They live in sweeps of their own (``spec["source"] == "ingest"``) without jobs. Each call may be repeated: a
run is known by its key, a point by its metric and step.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete
from sqlalchemy.orm import Session

from backend.services.jobs import Change, open_change
from backend.services.presenters import show_run
from backend.services.sweep_metrics import LOSS_OF, declared_metrics, is_number
from backend.store.engines import Store
from backend.store.jobs import new_id
from backend.store.metrics import Series, append_points, decimal_values, list_metrics, read_metric
from backend.store.sweeps import INGESTED, find_run, next_position
from backend.store.tables import ChunkRow, IdempotencyRow, RunRow, SweepRow
from lora_alpha.errors import Conflict, FieldProblem, InvalidSpec, NotFound
from lora_alpha.methods import LORA, METHODS
from lora_alpha.metrics import EVAL_LOSS, describe, guess_goal
from lora_alpha.spec import Configuration, short_number
from lora_alpha.wire.jobs import IngestPoints, IngestReceipt, IngestRun, IngestSeries
from lora_alpha.wire.sweeps import Run

LOSSES = ("eval_loss", "train_loss")  # in the order in which they stand for the outcome


def add_run(store: Store, request: IngestRun, *, now: float) -> Run:
    """Register a run that is trained elsewhere; a repeated key gives the same run back.

    Raises:
        NotFound: If ``sweep`` does not exist.
        InvalidSpec: If the method is unknown, rank or α are missing, or which way the metric is better.
        Conflict: If ``sweep`` is trained here.
    """
    scale = _scale(request)
    with open_change(store, now=now) as change:
        session, sweep = change.session, _sweep(change, request)
        known = session.get(IdempotencyRow, _run_key(sweep, request)) if request.key else None
        if known is not None and (row := session.get(RunRow, known.resource_id)) is not None:
            return show_run(row, sweep.tags)
        row = _insert(session, sweep, request, scale=scale, now=now)
        if request.key:
            session.merge(
                IdempotencyRow(key=_run_key(sweep, request), body_hash="", resource_id=row.id, created=now)
            )
        _widen(sweep, row, request)
        _note_metric(sweep, request)
        return show_run(row, sweep.tags)


def add_points(store: Store, run_id: str, request: IngestPoints, *, now: float) -> IngestReceipt:
    """Store points that are not there yet, then the outcome if the run has ended.

    Raises:
        NotFound: If the run does not exist.
        Conflict: If the run is trained here.
        InvalidSpec: If steps and values of a series differ in number.
    """
    _check_lengths(request)
    with open_change(store, now=now) as change:
        session = change.session
        row = find_run(session, run_id)
        sweep = change.sweep(row.sweep_id)
        session.refresh(row)  # others may have reported on it while this waited for the sweep
        if sweep.spec.get("source") != INGESTED:
            raise Conflict(f"run {run_id} is trained here: only ingested runs take points from outside")
        added = 0
        for series in request.series:
            added += _merge(session, run_id, series, now=now)
            row.step = max(row.step, *series.steps)
        _apply_outcome(session, row, request, now=now)
        total = sum(len(series.steps) for series in request.series)
        return IngestReceipt(
            id=run_id,
            state=row.state,  # type: ignore[arg-type]
            num_added=added,
            num_known=total - added,
        )


def _scale(request: IngestRun) -> float | None:
    info = METHODS.get(request.method)
    if info is None:
        known = ", ".join(METHODS)
        problems = [FieldProblem("method", f"got {request.method!r}: choose the nearest of {known}")]
    else:
        problems = [
            FieldProblem(name, f"{request.method} needs it")
            for name in ("rank", "alpha")
            if info.uses_rank and getattr(request, name) is None
        ]
    if problems:
        raise InvalidSpec(problems)
    return request.scale if request.scale is not None else _configuration(request).scale


def _configuration(request: IngestRun) -> Configuration:
    return Configuration(
        method=request.method,
        rank=request.rank,
        alpha=request.alpha,
        lr=request.lr,
        seed=request.seed,
        lr_ratio=request.lr_ratio,
    )


def _sweep(change: Change, request: IngestRun) -> SweepRow:
    session, now = change.session, change.now
    if request.sweep is not None:
        sweep = change.sweep(request.sweep)
        if sweep.spec.get("source") != INGESTED:
            raise Conflict(f"sweep {sweep.id} is trained here: leave 'sweep' out, or name an ingested one")
        return sweep
    key = f"ingest-sweep:{request.sweep_name}"
    known = session.get(IdempotencyRow, key)
    if known is not None:
        with suppress(NotFound):  # it was deleted
            return change.sweep(known.resource_id)
    sweep = SweepRow(
        id=new_id(),
        name=request.sweep_name,
        state="running",
        workload=request.workload,
        spec={
            "source": INGESTED,
            "train": {"workload": request.workload, "workload_options": {}, "steps": request.steps},
            **{axis: [] for axis in ("methods", "ranks", "alphas", "lrs", "seeds")},
        },
        tags=list(request.tags),
        created=now,
        started=now,
    )
    session.add(sweep)
    session.merge(IdempotencyRow(key=key, body_hash="", resource_id=sweep.id, created=now))
    session.flush()
    return change.sweep(sweep.id)


def _insert(
    session: Session, sweep: SweepRow, request: IngestRun, *, scale: float | None, now: float
) -> RunRow:
    configuration = _configuration(request)
    row = RunRow(
        id=new_id(),
        sweep_id=sweep.id,
        position=next_position(session, sweep.id),
        name=request.name or _name(configuration),
        state="running",
        workload=request.workload,
        method=request.method,
        rank=request.rank,
        alpha=request.alpha,
        scale=scale,
        lr=request.lr,
        seed=request.seed,
        steps=request.steps,
        configuration={
            **configuration.model_dump(mode="json"),
            "layers": request.layers,
            "config": request.config,
        },
        created=now,
        started=now,
    )
    session.add(row)
    session.flush()
    return row


def _name(configuration: Configuration) -> str:
    c = configuration
    parts = [] if c.method == LORA.name else [c.method]
    parts += [f"r{c.rank}"] if c.rank is not None else []
    parts += [f"a{short_number(c.alpha)}"] if c.alpha is not None else []
    return "-".join([*parts, f"lr{short_number(c.lr)}", f"s{c.seed}"])


def _widen(sweep: SweepRow, row: RunRow, request: IngestRun) -> None:
    """Keep the sweep's axes the union of its runs' values, as forms and filters expect."""
    spec: dict[str, Any] = dict(sweep.spec)
    values = {"methods": row.method, "ranks": row.rank, "alphas": row.alpha, "lrs": row.lr, "seeds": row.seed}
    for axis, value in values.items():
        if value is not None and value not in spec[axis]:
            spec[axis] = sorted([*spec[axis], value])
    spec["train"] = {**spec["train"], "steps": max(spec["train"]["steps"], row.steps)}
    sweep.spec = spec
    sweep.tags = list(dict.fromkeys([*sweep.tags, *request.tags]))


def _note_metric(sweep: SweepRow, request: IngestRun) -> None:
    """What α is to be chosen by from now on."""
    if request.metric is not None:
        goal = describe(request.metric, goal=request.goal, declared=declared_metrics(sweep)).goal
        sweep.spec = {**sweep.spec, "metric": request.metric, "goal": goal}


def _check_lengths(request: IngestPoints) -> None:
    problems = [
        FieldProblem(
            f"series.{index}.values",
            f"got {len(series.values)} values for {len(series.steps)} steps: give one value a step",
        )
        for index, series in enumerate(request.series)
        if len(series.values) != len(series.steps)
    ]
    if problems:
        raise InvalidSpec(problems)


def _merge(session: Session, run_id: str, series: IngestSeries, *, now: float) -> int:
    steps, first = np.unique(np.asarray(series.steps, dtype=np.int64), return_index=True)
    given = [float("nan") if value is None else value for value in series.values]
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as it would be in training
        values = np.asarray(given, dtype=np.float64).astype("<f4")[first]
    stored = read_metric(session, [run_id], series.metric).get(run_id)
    if stored is not None:
        new = ~np.isin(steps, stored.steps)
        steps, values = steps[new], values[new]
    if not len(steps):
        return 0
    added = len(steps)
    if stored is not None and steps[0] < stored.steps[-1]:
        steps, values = _interleave(stored, steps, values)
        session.execute(delete(ChunkRow).where(ChunkRow.run_id == run_id, ChunkRow.metric == series.metric))
        session.expire_all()
    append_points(session, run_id, series.metric, steps=steps, values=values, token=0, now=now)
    return added


def _interleave(
    stored: Series, steps: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    all_steps = np.concatenate([stored.steps, steps])
    order = np.argsort(all_steps, kind="stable")
    return all_steps[order], np.concatenate([stored.values, values])[order]


def _apply_outcome(session: Session, row: RunRow, request: IngestPoints, *, now: float) -> None:
    if request.summary:
        row.summary = {**row.summary, **request.summary}
    if request.forgetting is not None:
        row.forgetting = request.forgetting
    if request.error is not None:
        row.error = request.error
    if request.state == "running":
        row.state, row.finished = "running", None
    if request.state in {"finished", "failed"}:
        row.state, row.finished = request.state, row.finished or now
        _read_losses(session, row)
        row.summary = {**row.summary, **_last_values(session, row), **request.summary}
    if request.final_loss is not None:
        _mark_loss(row, EVAL_LOSS.name)
    for name in ("final_loss", "best_loss", "best_step", "diverged"):
        if (value := getattr(request, name)) is not None:
            setattr(row, name, value)
    session.flush()


def _read_losses(session: Session, row: RunRow) -> None:
    for metric in LOSSES:
        series = read_metric(session, [row.id], metric).get(row.id)
        if series is None:
            if is_number(last := row.summary.get(metric)):
                row.final_loss, row.best_loss = last, last
                _mark_loss(row, metric)
                return
            continue
        finite = np.isfinite(series.values)
        values = decimal_values(series.values)
        row.diverged = not bool(finite[-1])
        row.final_loss = values[-1] if finite[-1] else None
        row.best_loss = row.best_step = None
        if finite.any():
            best = int(np.argmin(np.where(finite, series.values, np.inf)))
            row.best_loss, row.best_step = values[best], int(series.steps[best])
        _mark_loss(row, metric)
        return


def _mark_loss(row: RunRow, metric: str) -> None:
    """Keep what the run's loss is of, where that is not the held-out loss: the two are not comparable."""
    kept = {name: value for name, value in row.configuration.items() if name != LOSS_OF}
    row.configuration = kept if metric == EVAL_LOSS.name else {**kept, LOSS_OF: metric}


def _last_values(session: Session, row: RunRow) -> dict[str, float]:
    """The last value of every curve that runs may be sorted by: of which it is known what is better."""
    names = [name for name in list_metrics(session, [row.id]) if name not in LOSSES and guess_goal(name)]
    found: dict[str, float] = {}
    for name in names:
        value = decimal_values(read_metric(session, [row.id], name)[row.id].values[-1:])[0]
        found |= {name: value} if np.isfinite(value) else {}
    return found


def _run_key(sweep: SweepRow, request: IngestRun) -> str:
    return f"ingest-run:{sweep.id}:{request.key}"
