"""Use cases of Hessian probes: a probe is a row and the job of the same id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.pages import decode_cursor, encode_cursor
from backend.services.jobs import request_cancel
from backend.services.presenters import timestamp
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import enqueue, new_id
from backend.store.sweeps import find_run, find_sweep
from backend.store.tables import JobRow, ProbeRow, RunRow
from lora_alpha.catalog import WORKLOADS, workload_info
from lora_alpha.catalog.resolve import problems_from
from lora_alpha.errors import Conflict, FieldProblem, InvalidSpec, NotFound
from lora_alpha.methods import METHODS
from lora_alpha.spec import ProbeSpec
from lora_alpha.wire.jobs import Probe
from lora_alpha.wire.sweeps import Page


def create(store: Store, settings: Settings, spec: ProbeSpec, *, now: float) -> Probe:
    """Queue a probe at a run's weights or at a fresh point.

    Raises:
        InvalidSpec: With every field that does not fit.
        NotFound: If the run does not exist.
        Conflict: If the run has no weights at that step.
    """
    problems = _problems(spec)
    if problems:
        raise InvalidSpec(problems)
    with store.write() as session:
        run = find_run(session, spec.run) if spec.run else None
        if run is not None:
            _check_point(session, run, spec.step)
        return _show(session, [insert(session, settings, spec, run=run, now=now)])[0]


def insert(
    session: Session, settings: Settings, spec: ProbeSpec, *, run: RunRow | None, now: float
) -> ProbeRow:
    """The row of a probe and its queued job; ring after the commit."""
    job_id = new_id()
    document = spec.model_dump(mode="json")
    enqueue(
        session,
        job_id=job_id,
        kind="probe",
        spec=document,
        now=now,
        sweep_id=run.sweep_id if run else None,
        max_attempts=settings.max_attempts,
    )
    row = ProbeRow(
        id=job_id,
        sweep_id=run.sweep_id if run else None,
        run_id=run.id if run else None,
        step=spec.step if run is None or spec.step is not None else run.steps,
        kind=spec.kind,
        space=spec.space,
        state="queued",
        spec=document,
        created=now,
    )
    session.add(row)
    session.flush()
    return row


def read(store: Store, probe_id: str) -> Probe:
    """One probe."""
    with store.read() as session:
        return _show(session, [_find(session, probe_id)])[0]


def listing(
    store: Store,
    *,
    sweep: str | None,
    run: str | None,
    state: str | None,
    kind: str | None,
    space: str | None,
    cursor: str | None,
    limit: int,
    fresh: bool = False,
) -> Page[Probe]:
    """Probes that match, newest first; ``fresh``: only those that belong to no sweep."""
    query = select(ProbeRow).order_by(ProbeRow.created.desc(), ProbeRow.id.desc())
    if fresh:
        query = query.where(ProbeRow.sweep_id.is_(None))
    filters = {"sweep_id": sweep, "run_id": run, "state": state, "kind": kind, "space": space}
    for name, value in filters.items():
        if value is not None:
            query = query.where(getattr(ProbeRow, name) == value)
    if cursor:
        created, last = decode_cursor(cursor, (float, str))
        query = query.where(
            (ProbeRow.created < created) | ((ProbeRow.created == created) & (ProbeRow.id < last))
        )
    with store.read() as session:
        rows = list(session.scalars(query.limit(limit + 1)))
        page = rows[:limit]
        more = len(rows) > limit
        return Page(
            items=_show(session, page),
            next=encode_cursor(page[-1].created, page[-1].id) if more else None,
        )


def cancel(store: Store, probe_id: str, *, now: float) -> Probe:
    """Ask a probe to stop.

    Raises:
        Conflict: If it has ended.
    """
    probe = read(store, probe_id)  # not found unless it is a probe's id
    if not request_cancel(store, probe_id, now=now):
        raise Conflict(f"probe {probe_id} is {probe.state}: there is nothing to cancel")
    return read(store, probe_id)


def _find(session: Session, probe_id: str) -> ProbeRow:
    row = session.get(ProbeRow, probe_id)
    if row is None:
        raise NotFound(f"there is no probe {probe_id!r}")
    return row


def _problems(spec: ProbeSpec) -> list[FieldProblem]:
    if (spec.run is None) == (spec.workload is None):
        return [FieldProblem("run", "give either a run, or a workload with rank and alpha, not both")]
    if spec.run is not None:
        return []
    assert spec.workload is not None
    problems = []
    if spec.workload not in WORKLOADS:
        known = ", ".join(sorted(WORKLOADS))
        problems.append(FieldProblem("workload", f"got {spec.workload!r}: choose one of {known}"))
    else:
        try:
            workload_info(spec.workload).options.model_validate(spec.workload_options)
        except ValidationError as error:
            problems += problems_from(error, prefix="workload_options")
    if spec.method not in METHODS:
        problems.append(FieldProblem("method", f"got {spec.method!r}: choose one of {', '.join(METHODS)}"))
    elif spec.space == "lora":
        if refusal := METHODS[spec.method].no_lora_space:
            message = f"{spec.method} has no LoRA coordinates: {refusal}; take 'full'"
            problems.append(FieldProblem("space", message))
        problems += [
            FieldProblem(name, "a fresh point in LoRA coordinates needs it")
            for name in ("rank", "alpha")
            if getattr(spec, name) is None
        ]
    if spec.step is not None:
        problems.append(FieldProblem("step", "a fresh point has no steps: leave it out"))
    return problems


def _check_point(session: Session, run: RunRow, step: int | None) -> None:
    if run.job_id is None:
        raise Conflict(f"run {run.id} was trained elsewhere: its weights are not here")
    if step == 0:
        return
    if step is None or step == run.steps:
        if run.state != "finished":
            raise Conflict(f"run {run.id} is {run.state}: its end can be probed when it has finished")
        if run.adapter is None:
            raise Conflict(f"run {run.id} kept no adapter: only step 0 can be probed")
        return
    kept = find_sweep(session, run.sweep_id).spec["train"].get("adapter_steps", [])
    if step not in kept:
        steps = ", ".join(map(str, (0, *kept))) + f" and {run.steps}"
        raise Conflict(f"run {run.id} keeps its weights at steps {steps} only: step {step} cannot be probed")
    if run.step < step:
        raise Conflict(f"run {run.id} is at step {run.step}: step {step} can be probed when it has got there")


def _show(session: Session, rows: Sequence[ProbeRow]) -> list[Probe]:
    jobs = {
        job.id: job for job in session.scalars(select(JobRow).where(JobRow.id.in_([row.id for row in rows])))
    }
    return [_probe(row, jobs.get(row.id)) for row in rows]


def _probe(row: ProbeRow, job: JobRow | None) -> Probe:
    created = timestamp(row.created)
    assert created is not None
    live: dict[str, Any] = {"progress": job.progress, "message": job.message} if job else {}
    return Probe(
        id=row.id,
        state=row.state,  # type: ignore[arg-type]
        sweep_id=row.sweep_id,
        run_id=row.run_id,
        step=row.step,
        kind=row.kind,  # type: ignore[arg-type]
        space=row.space,  # type: ignore[arg-type]
        spec=row.spec,
        result=row.result,
        error=row.error,
        created_at=created,
        started_at=timestamp(row.started),
        finished_at=timestamp(row.finished),
        **live,
    )
