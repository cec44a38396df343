"""Probes that a sweep attaches to each of its runs: queued in the transaction that finishes the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.services.probes import insert
from backend.settings import Settings
from backend.store.jobs import new_id
from backend.store.sweeps import find_sweep
from backend.store.tables import ProbeRow, RunRow
from lora_alpha.methods import METHODS
from lora_alpha.spec import ProbePlan, ProbeSpec


def queue_planned_probes(session: Session, settings: Settings, run_ids: Sequence[str], *, now: float) -> int:
    """Queue what the sweep's plan asks for at these runs, which have just finished; ring after the commit.

    A point that cannot be probed (of a diverged run, from there on) gets a failed probe that says why. Spaces
    that a method does not have are left out.

    Returns:
        The number of jobs queued.
    """
    queued = 0
    for run in session.scalars(select(RunRow).where(RunRow.id.in_(run_ids)).order_by(RunRow.position)):
        # Read as it lies in the row: a whole sweep may hold thousands of cells.
        planned = find_sweep(session, run.sweep_id).spec.get("probes")
        if planned is None:
            continue
        for spec in _wanted(ProbePlan.model_validate(planned), run):
            if run.diverged and spec.step is not None and spec.step >= max(run.step, 1):
                session.add(_failed(run, spec, now=now))
            else:
                insert(session, settings, spec, run=run, now=now)
                queued += 1
    return queued


def _wanted(plan: ProbePlan, run: RunRow) -> Iterator[ProbeSpec]:
    for at in plan.at:
        step = {"init": 0, "end": run.steps}.get(at) if isinstance(at, str) else at
        for kind in plan.kinds:
            for space in plan.spaces:
                if space == "full" or not METHODS[run.method].no_lora_space:
                    yield ProbeSpec(run=run.id, step=step, kind=kind, space=space)


def _failed(run: RunRow, spec: ProbeSpec, *, now: float) -> ProbeRow:
    return ProbeRow(
        id=new_id(),
        sweep_id=run.sweep_id,
        run_id=run.id,
        step=spec.step,
        kind=spec.kind,
        space=spec.space,
        state="failed",
        spec=spec.model_dump(mode="json"),
        error=f"run {run.id} diverged at step {run.step}: there are no weights to probe",
        created=now,
        finished=now,
    )
