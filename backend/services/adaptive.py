"""Adaptive search: a coarse α grid first; when its runs are used up, more around each rank's optimum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy.orm import Session

from backend.services.outcomes import Reading, sweep_cells
from backend.services.packs import add_runs, fleet_of
from backend.store.sweeps import existing_configurations
from backend.store.tables import SweepRow
from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.refine import REACH, coarse_grid, next_alphas
from lora_alpha.catalog.resolve import MAX_RUNS
from lora_alpha.methods import METHODS
from lora_alpha.spec import Configuration, SweepSpec, name_runs

MAX_ATTEMPTS = 5


def first_stage(spec: SweepSpec) -> SweepSpec:
    """What of ``spec`` runs at once: all of a grid, the coarse α of an adaptive search."""
    if spec.search.kind == "grid":
        return spec
    return spec.model_copy(update={"alphas": coarse_grid(spec.alphas)})


def refine(session: Session, sweep: SweepRow, *, now: float) -> bool:
    """Queue the next runs of an adaptive sweep whose runs are used up; False when it needs no more."""
    if sweep.intent != "run" or sweep.spec.get("search", {}).get("kind") != "adaptive":
        return False
    spec = SweepSpec.model_validate(sweep.spec)
    have = existing_configurations(session, sweep.id)
    missing = [
        configuration
        for configuration in _wanted(spec, sweep_cells(session, sweep.id, Reading()))
        if configuration.model_dump_json() not in have
    ]
    if not missing or len(have) + len(missing) > MAX_RUNS:
        return False
    known = [Configuration.model_validate_json(text) for text in sorted(have)]
    add_runs(
        session,
        sweep,
        name_runs(spec.train, [*known, *missing])[len(known) :],
        fleet=fleet_of(session, now=now),
        max_attempts=MAX_ATTEMPTS,
        now=now,
    )
    return True


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
