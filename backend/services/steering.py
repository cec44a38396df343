"""Pause, resume, stop, cancel, retry, extend, delete: what a user may do to a sweep that exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import delete, select, update

from backend.services import init_adapters, jobs
from backend.services.actions import ELSEWHERE
from backend.services.jobs import Change
from backend.services.packs import add_runs, fleet_of
from backend.services.sweeps import read
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.sweeps import INGESTED, existing_configurations
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.catalog.resolve import check_size
from lora_alpha.errors import Conflict, FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.spec import ENDED_SWEEPS, SweepSpec, expand
from lora_alpha.wire.sweeps import ExtendRequest, Sweep


def steer(store: Store, settings: Settings, sweep_id: str, verb: str, *, now: float) -> Sweep:
    """Apply pause, resume, stop, cancel or retry.

    Raises:
        NotFound: If the sweep does not exist.
        Conflict: If the verb does not fit the sweep's state.
    """
    with jobs.open_change(store, now=now) as change:
        row = change.sweep(sweep_id)
        if row.spec.get("source") == INGESTED:
            _steer_ingested(change, row, verb)
        else:
            _VERBS[verb](change, settings, row)
    return read(store, sweep_id, now=now)


def extend(store: Store, settings: Settings, sweep_id: str, request: ExtendRequest, *, now: float) -> Sweep:
    """Add cells: new axis values crossed with the old ones, and explicit configurations.

    New seeds are run at the explicit cells that the sweep has, too.
    Cells that the sweep already has are left alone.

    Raises:
        NotFound: If the sweep does not exist.
        InvalidSpec: For an unknown method, a configuration without rank or α, or too many runs.
        Conflict: If the sweep was cancelled or stopped, or its runs are trained elsewhere.
    """
    with jobs.open_change(store, now=now) as change:
        row = change.sweep(sweep_id)
        _refuse_ingested(row, "extended")
        if row.intent in {"cancel", "stop"}:
            raise Conflict(f"sweep {sweep_id} is {row.state}: resume it before you extend it")
        new = _extended(SweepSpec.model_validate(row.spec), request)
        check_size(new)
        init_adapters.check(new, settings)
        have = existing_configurations(change.session, sweep_id)
        missing = [run for run in expand(new) if run.configuration.model_dump_json() not in have]
        row.spec = new.model_dump(mode="json")
        change.session.flush()
        add_runs(
            change.session,
            row,
            missing,
            fleet=fleet_of(change.session, expected=settings.fleet, now=now),
            max_attempts=settings.max_attempts,
            now=now,
        )
    return read(store, sweep_id, now=now)


def remove(store: Store, settings: Settings, sweep_id: str) -> None:
    """Delete a sweep with its runs, curves, probes, adapters and checkpoints.

    Raises:
        NotFound: If the sweep does not exist.
        Conflict: If something of it still runs.
    """
    with jobs.open_change(store, now=0.0) as change:  # nothing is left that would show a time
        session, row = change.session, change.sweep(sweep_id)
        of_sweep = select(JobRow.id).where(JobRow.sweep_id == sweep_id)
        if session.scalars(of_sweep.where(JobRow.state == "running").limit(1)).first() is not None:
            raise Conflict(f"sweep {row.id} is {row.state}: cancel it first, then delete it")
        runs = session.execute(select(RunRow.id, RunRow.adapter).where(RunRow.sweep_id == sweep_id)).all()
        job_ids = session.scalars(of_sweep).all()
        session.execute(delete(SweepRow).where(SweepRow.id == sweep_id))
    for run_id, adapter in runs:
        settings.files.forget_adapters(run_id, adapter)
    for job_id in job_ids:
        settings.files.forget_checkpoints(job_id)


def _pause(change: Change, _: Settings, row: SweepRow) -> None:
    _refuse_if_over(row, "pause")
    jobs.pause_sweep(change, row)


def _resume(change: Change, settings: Settings, row: SweepRow) -> None:
    """Go on with what was paused, or cut off by a stop or cancel that is over."""
    if row.intent == "run":
        raise Conflict(f"sweep {row.id} is {row.state}: it was not paused, stopped or cancelled")
    if row.state == "stopping" and row.intent == "cancel":
        raise Conflict(f"sweep {row.id} is being cancelled: wait until that is done")
    jobs.resume_sweep(change, row)
    _requeue(change, settings, row, ("cancelled",))


def _stop(change: Change, _: Settings, row: SweepRow) -> None:
    _refuse_if_over(row, "stop")
    jobs.stop_sweep(change, row)


def _cancel(change: Change, _: Settings, row: SweepRow) -> None:
    _refuse_if_over(row, "cancel")
    jobs.cancel_sweep(change, row)


def _retry(change: Change, settings: Settings, row: SweepRow) -> None:
    if not _requeue(change, settings, row, ("failed", "lost")):
        raise Conflict(f"sweep {row.id} has no failed or lost run to retry")
    if row.intent != "pause":
        row.intent = "run"


def _requeue(change: Change, settings: Settings, row: SweepRow, states: tuple[str, ...]) -> int:
    fleet = fleet_of(change.session, expected=settings.fleet, now=change.now)
    return jobs.requeue_runs(change, row, states=states, fleet=fleet, max_attempts=settings.max_attempts)


def _steer_ingested(change: Change, row: SweepRow, verb: str) -> None:
    """Runs trained elsewhere cannot be steered, but those that will never report again can be closed."""
    if verb not in ELSEWHERE:
        _refuse_ingested(row, f"{verb}d" if verb.endswith("e") else f"made to {verb}")
    _refuse_if_over(row, verb)
    row.intent = verb
    runs = update(RunRow).where(RunRow.sweep_id == row.id, RunRow.state == "running")
    change.session.execute(runs.values(state="cancelled", finished=change.now))


def _refuse_if_over(row: SweepRow, verb: str) -> None:
    if row.state in ENDED_SWEEPS:
        raise Conflict(f"sweep {row.id} is {row.state}: there is nothing to {verb}")


def _refuse_ingested(row: SweepRow, done: str) -> None:
    if row.spec.get("source") == INGESTED:
        raise Conflict(
            f"sweep {row.id} was ingested: its runs are trained elsewhere and cannot be {done} here"
        )


_VERBS: dict[str, Callable[[Change, Settings, SweepRow], None]] = {
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
