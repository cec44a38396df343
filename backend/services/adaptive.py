"""Adaptive search: a coarse α grid first; when its runs are used up, more around each rank's optimum."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from backend.services.jobs import open_change
from backend.services.outcomes import Reading, sweep_cells
from backend.services.packs import add_runs, fleet_of
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.sweeps import existing_configurations, find_sweep, run_counts
from backend.store.tables import RunRow, SweepRow
from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.refine import REACH, coarse_grid, next_alphas
from lora_alpha.catalog.resolve import MAX_RUNS
from lora_alpha.methods import METHODS
from lora_alpha.spec import Configuration, RunSpec, SweepSpec, name_runs
from lora_alpha.wire.sweeps import RunCounts

LOG = logging.getLogger("lora_alpha.adaptive")


def first_stage(spec: SweepSpec) -> SweepSpec:
    """What of ``spec`` runs at once: all of a grid, the coarse α of an adaptive search."""
    if spec.search.kind == "grid":
        return spec
    return spec.model_copy(update={"alphas": coarse_grid(spec.alphas)})


def refine_due(store: Store, settings: Settings, *, now: float) -> int:
    """Take every adaptive search further whose runs are used up; an error keeps none but its own waiting.

    Workers call it when nothing is queued, the reconciler once a second: whoever is later finds it done.

    Returns:
        How many searches got runs; ring for them.
    """
    with store.read() as session:
        used_up = session.scalars(
            select(SweepRow.id).where(
                SweepRow.refinement_due,
                SweepRow.intent == "run",
                ~exists().where(RunRow.sweep_id == SweepRow.id, RunRow.state.in_(("queued", "running"))),
            )
        ).all()
    refined = 0
    for sweep_id in used_up:
        try:
            refined += _refine(store, settings, sweep_id, now=now)
        except Exception:
            LOG.exception("sweep %s cannot be taken further", sweep_id)
    return refined


@dataclass(frozen=True)
class _Search:
    """A search as it was read: its sweep's spec, its runs by state, their configurations and cells."""

    spec: dict[str, Any]
    counts: RunCounts
    have: set[str]
    cells: Sequence[Cell]


def _refine(store: Store, settings: Settings, sweep_id: str, *, now: float) -> bool:
    """Queue the next runs of a search, or note that it needs no more: then it can be finished.

    What it needs is computed before the write transaction, which would hold up the workers' writes. Where
    the search was changed in between, nothing is decided: the next look at it will.
    """
    with store.read() as session:
        search = _read(session, sweep_id)
    runs = _next_runs(search)
    with open_change(store, now=now) as change:
        session = change.session
        sweep = change.sweep(sweep_id)
        counts = run_counts(session, [sweep_id])[sweep_id]
        if not sweep.refinement_due or sweep.intent != "run" or counts.queued or counts.running:
            return False  # somebody else was faster
        if counts != search.counts or sweep.spec != search.spec:
            return False
        if runs:
            fleet = fleet_of(session, expected=settings.fleet, now=now)
            add_runs(session, sweep, runs, fleet=fleet, max_attempts=settings.max_attempts, now=now)
        else:
            sweep.refinement_due = False
        return bool(runs)


def _read(session: Session, sweep_id: str) -> _Search:
    # The counts first: whatever changes while the rest is read makes them other than those under the lock.
    counts = run_counts(session, [sweep_id])[sweep_id]
    return _Search(
        spec=find_sweep(session, sweep_id).spec,
        counts=counts,
        have=existing_configurations(session, sweep_id),
        cells=sweep_cells(session, sweep_id, Reading()),
    )


def _next_runs(search: _Search) -> list[RunSpec]:
    """What the search still needs, nothing where that would be more runs than a sweep may have."""
    spec = SweepSpec.model_validate(search.spec)
    missing = [
        configuration
        for configuration in _wanted(spec, search.cells)
        if configuration.model_dump_json() not in search.have
    ]
    if len(search.have) + len(missing) > MAX_RUNS:
        return []
    known = [Configuration.model_validate_json(text) for text in sorted(search.have)]
    return name_runs(spec.train, [*known, *missing])[len(known) :]


def _wanted(spec: SweepSpec, cells: Sequence[Cell]) -> list[Configuration]:
    """One configuration a seed for each α that a curve of the search still needs."""
    low, high = min(spec.alphas) / REACH, max(spec.alphas) * REACH
    searched = [
        cell
        for cell in cells
        if METHODS[cell.method].uses_rank
        and not METHODS[cell.method].alpha_from_rule
        and cell.alpha_schedule == spec.alpha_schedule.label
    ]
    wanted = []
    for (method, lr, lr_ratio, rank), curve in groupby(sorted(searched, key=_curve_key), key=_curve_key):
        for alpha in next_alphas(list(curve), low=low, high=high):
            wanted += [
                Configuration(
                    method=method,
                    rank=rank,
                    alpha=alpha,
                    lr=lr,
                    seed=seed,
                    lr_ratio=lr_ratio,
                    alpha_schedule=spec.alpha_schedule,
                )
                for seed in spec.seeds
            ]
    return wanted


def _curve_key(cell: Cell) -> tuple[str, float, float, int]:
    return (cell.method, cell.lr, cell.lr_ratio, cell.rank or 0)
