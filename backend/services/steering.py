"""Pause, resume, stop, cancel, retry, extend, delete: what a user may do to a sweep that exists."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from backend.services import init_adapters
from backend.services.packs import add_runs, enqueue_packs, fleet_of, start_over
from backend.services.presenters import show_sweep
from backend.services.states import refresh_state
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import UNFINISHED, cancel_waiting, request_cancel
from backend.store.sweeps import existing_configurations, find_sweep, runs_in_state, unfinished_jobs
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.catalog.resolve import check_size
from lora_alpha.errors import Conflict, FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.spec import ENDED_SWEEPS, SweepSpec, expand
from lora_alpha.wire.sweeps import ExtendRequest, Sweep

INGESTED = "ingest"


def steer(store: Store, settings: Settings, sweep_id: str, verb: str, *, now: float) -> Sweep:
    """Apply pause, resume, stop, cancel or retry.

    Raises:
        NotFound: If the sweep does not exist.
        Conflict: If the verb does not fit the sweep's state.
    """
    with store.write() as session:
        row = find_sweep(session, sweep_id)
        if row.spec.get("source") == INGESTED:
            _steer_ingested(session, row, verb, now)
        else:
            _VERBS[verb](session, settings, row, now)
        refresh_state(session, sweep_id, now=now)
        return show_sweep(session, row, now=now)


def extend(store: Store, settings: Settings, sweep_id: str, request: ExtendRequest, *, now: float) -> Sweep:
    """Add cells: new axis values crossed with the old ones, and explicit configurations.

    New seeds are run at the explicit cells that the sweep has, too.
    Cells that the sweep already has are left alone.

    Raises:
        NotFound: If the sweep does not exist.
        InvalidSpec: For an unknown method, a configuration without rank or α, or too many runs.
        Conflict: If the sweep was cancelled or stopped, or its runs are trained elsewhere.
    """
    with store.write() as session:
        row = find_sweep(session, sweep_id)
        _refuse_ingested(row, "extended")
        if row.intent in {"cancel", "stop"}:
            raise Conflict(f"sweep {sweep_id} is {row.state}: resume it before you extend it")
        new = _extended(SweepSpec.model_validate(row.spec), request)
        check_size(new)
        init_adapters.check(new, settings)
        have = existing_configurations(session, sweep_id)
        missing = [run for run in expand(new) if run.configuration.model_dump_json() not in have]
        row.spec = new.model_dump(mode="json")
        session.flush()
        add_runs(
            session,
            row,
            missing,
            fleet=fleet_of(session, expected=settings.fleet, now=now),
            max_attempts=settings.max_attempts,
            now=now,
        )
        refresh_state(session, sweep_id, now=now)
        return show_sweep(session, row, now=now)


def remove(store: Store, settings: Settings, sweep_id: str) -> None:
    """Delete a sweep with its runs, curves, probes, adapters and checkpoints.

    Raises:
        NotFound: If the sweep does not exist.
        Conflict: If something of it still runs.
    """
    with store.write() as session:
        row = find_sweep(session, sweep_id)
        running = session.scalar(
            select(func.count()).where(JobRow.sweep_id == sweep_id, JobRow.state == "running")
        )
        if running:
            raise Conflict(f"sweep {row.id} is {row.state}: cancel it first, then delete it")
        runs = session.execute(select(RunRow.id, RunRow.adapter).where(RunRow.sweep_id == sweep_id)).all()
        jobs = session.scalars(select(JobRow.id).where(JobRow.sweep_id == sweep_id)).all()
        session.execute(delete(SweepRow).where(SweepRow.id == sweep_id))
    for run_id, adapter in runs:
        if adapter:
            (settings.home / adapter).unlink(missing_ok=True)
        for path in (settings.home / "adapters").glob(f"{run_id}-step*"):
            path.unlink(missing_ok=True)
    for job in jobs:
        shutil.rmtree(settings.home / "checkpoints" / job, ignore_errors=True)


def _pause(session: Session, _: Settings, row: SweepRow, __: float) -> None:
    _refuse_if_over(row, "pause")
    row.intent = "pause"
    jobs = update(JobRow).where(JobRow.sweep_id == row.id, JobRow.kind == "pack")
    session.execute(jobs.where(JobRow.state == "running").values(pause=True))
    session.execute(jobs.where(JobRow.state == "queued").values(state="paused"))


def _resume(session: Session, settings: Settings, row: SweepRow, now: float) -> None:
    """Go on with what was paused, or cut off by a stop or cancel that is over."""
    if row.intent == "run":
        raise Conflict(f"sweep {row.id} is {row.state}: it was not paused, stopped or cancelled")
    if row.state == "stopping" and row.intent == "cancel":
        raise Conflict(f"sweep {row.id} is being cancelled: wait until that is done")
    row.intent = "run"
    jobs = update(JobRow).where(JobRow.sweep_id == row.id)
    session.execute(jobs.where(JobRow.state == "running").values(pause=False))
    session.execute(jobs.where(JobRow.state == "paused").values(state="queued", pause=False, rung=None))
    _requeue(session, settings, row, ("cancelled",), now)


def _stop(session: Session, _: Settings, row: SweepRow, now: float) -> None:
    """Running packs end in their own time; waiting ones are cancelled."""
    _refuse_if_over(row, "stop")
    row.intent = "stop"
    # A pause that a running pack has not followed yet is void: nobody would resume the pack.
    jobs = update(JobRow).where(JobRow.sweep_id == row.id, JobRow.state == "running")
    session.execute(jobs.values(pause=False))
    request_cancel(session, unfinished_jobs(session, row.id, ("queued", "paused")))
    cancel_waiting(session, now=now, sweep_id=row.id)


def _cancel(session: Session, _: Settings, row: SweepRow, now: float) -> None:
    _refuse_if_over(row, "cancel")
    row.intent = "cancel"
    request_cancel(session, unfinished_jobs(session, row.id, UNFINISHED))
    cancel_waiting(session, now=now, sweep_id=row.id)


def _retry(session: Session, settings: Settings, row: SweepRow, now: float) -> None:
    if not _requeue(session, settings, row, ("failed", "lost"), now):
        raise Conflict(f"sweep {row.id} has no failed or lost run to retry")
    if row.intent != "pause":
        row.intent = "run"


def _steer_ingested(session: Session, row: SweepRow, verb: str, now: float) -> None:
    """Runs trained elsewhere cannot be steered, but those that will never report again can be closed."""
    if verb not in {"stop", "cancel"}:
        _refuse_ingested(row, f"{verb}d" if verb.endswith("e") else f"made to {verb}")
    _refuse_if_over(row, verb)
    row.intent = verb
    runs = update(RunRow).where(RunRow.sweep_id == row.id, RunRow.state == "running")
    session.execute(runs.values(state="cancelled", finished=now))


def _requeue(session: Session, settings: Settings, row: SweepRow, states: tuple[str, ...], now: float) -> int:
    """Put runs of these states into new packs; whatever they had written starts over."""
    runs = runs_in_state(session, row.id, states)
    if not runs:
        return 0
    start_over(session, runs)
    session.flush()
    enqueue_packs(
        session,
        row,
        runs,
        fleet=fleet_of(session, expected=settings.fleet, now=now),
        max_attempts=settings.max_attempts,
        now=now,
    )
    return len(runs)


def _refuse_if_over(row: SweepRow, verb: str) -> None:
    if row.state in ENDED_SWEEPS:
        raise Conflict(f"sweep {row.id} is {row.state}: there is nothing to {verb}")


def _refuse_ingested(row: SweepRow, done: str) -> None:
    if row.spec.get("source") == INGESTED:
        raise Conflict(
            f"sweep {row.id} was ingested: its runs are trained elsewhere and cannot be {done} here"
        )


_VERBS: dict[str, Callable[[Session, Settings, SweepRow, float], None]] = {
    "pause": _pause,
    "resume": _resume,
    "stop": _stop,
    "cancel": _cancel,
    "retry": _retry,
}
VERBS = tuple(_VERBS)


def _extended(old: SweepSpec, request: ExtendRequest) -> SweepSpec:
    problems = [
        FieldProblem("methods", f"got {name!r}: choose from {', '.join(METHODS)}")
        for name in [*request.methods, *(cell.method for cell in request.cells)]
        if name not in METHODS
    ]
    problems += [
        FieldProblem(f"cells.{index}", f"{cell.method} needs a rank and an alpha")
        for index, cell in enumerate(request.cells)
        if cell.method in METHODS and METHODS[cell.method].uses_rank and cell.scale is None
    ]
    if problems:
        raise InvalidSpec(problems)

    def union(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
        return list(dict.fromkeys([*first, *second]))

    # A curve whose cells differ in their seeds would compare seeds, not α.
    again = [cell.model_copy(update={"seed": seed}) for cell in old.cells for seed in request.seeds]
    return old.model_copy(
        update={
            "methods": union(old.methods, request.methods),
            "ranks": sorted(union(old.ranks, request.ranks)),
            "alphas": sorted(union(old.alphas, request.alphas)),
            "lrs": sorted(union(old.lrs, request.lrs)),
            "seeds": sorted(union(old.seeds, request.seeds)),
            "cells": union(old.cells, [*again, *request.cells]),
        }
    )
