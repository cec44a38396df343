"""CSV exports: complete, streamed, in full precision, safe to open in a spreadsheet.

A float is written as Python's ``repr``, so that it reads back as the same number that the JSON answers give.
Nothing is sampled. A text cell that a spreadsheet would execute gets an apostrophe in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.services.analysis import sweep_laws
from backend.services.outcomes import Reading, sweep_cells
from backend.services.presenters import show_run
from backend.store.engines import Store
from backend.store.metrics import decimal_values, iter_history
from backend.store.sweeps import find_sweep
from backend.store.tables import ProbeRow, RunRow, SweepRow
from lora_alpha.wire.analysis import LawItem

RUNS = (
    *(
        "run_id",
        "sweep_id",
        "name",
        "state",
        "diverged",
        "workload",
        "method",
        "rank",
        "alpha",
        "scale",
        "lr",
    ),
    *("seed", "steps", "final_loss", "best_loss", "best_step", "forgetting", "started_at", "duration_s"),
    *("tags", "error", "lr_ratio", "alpha_schedule"),
)
HISTORY = ("run_id", "metric", "step", "time", "value")
CELLS = (
    *("sweep_id", "method", "rank", "alpha", "scale", "lr", "n", "mean", "std", "ci_low", "ci_high"),
    *("num_diverged", "num_failed", "num_pending", "forgetting", "lr_ratio", "alpha_schedule"),
)
OPTIMA = (
    *("sweep_id", "workload", "method", "lr", "rank", "alpha_star", "alpha_low", "alpha_high", "basin_low"),
    *("basin_high", "loss", "censored", "num_seeds", "target", "alpha", "lr_ratio"),
)
LAW = (
    *("sweep_id", "workload", "method", "lr", "exponent", "exponent_low", "exponent_high", "coefficient"),
    *("coefficient_low", "coefficient_high", "num_ranks", "num_censored", "num_seeds", "num_diverged"),
    *("num_excluded", "target", "alpha", "lr_ratio", "bend", "bend_low", "bend_high"),
)
PROBES = ("probe_id", "run_id", "step", "space", "kind", "index", "value", "error")

# What makes a spreadsheet take a cell for a formula, full-width forms included.
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
BLOCK_ROWS = 2_000

Row = Sequence[Any]
Ids = Sequence[str] | None


def csv_blocks(store: Store, kind: str, sweep_ids: Ids) -> Iterator[bytes]:
    """The export ``kind`` of these sweeps (None: of all) as UTF-8 blocks, header first.

    The sweeps must exist: see ``check_sweeps``.
    """
    columns, blocks = EXPORTS[kind]
    yield _block([columns])
    with store.read() as session:
        yield from blocks(session, sweep_ids)


def check_sweeps(store: Store, sweep_ids: Iterable[str]) -> None:
    """Make sure that every sweep exists.

    Raises:
        NotFound: If one does not.
    """
    with store.read() as session:
        for sweep_id in sweep_ids:
            find_sweep(session, sweep_id)


def text_cell(value: Any) -> str:
    """A value as a CSV cell: floats in full, None empty, text that would be a formula with ``'`` before it.

    >>> text_cell("=1+1"), text_cell(-1.5), text_cell(None), text_cell(True)
    ("'=1+1", '-1.5', '', 'true')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_STARTS) else value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return text_cell(";".join(value))
    return repr(value)


def _block(rows: Iterable[Row]) -> bytes:
    return "".join(",".join(_quoted(text_cell(cell)) for cell in row) + "\n" for row in rows).encode()


def _quoted(text: str) -> str:
    # Python's csv.writer leaves a lone carriage return bare, which its reader then refuses.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _in_blocks(rows: Callable[[Session, Ids], Iterator[Row]]) -> Callable[[Session, Ids], Iterator[bytes]]:
    def blocks(session: Session, sweep_ids: Ids) -> Iterator[bytes]:
        remaining = rows(session, sweep_ids)
        while block := list(itertools.islice(remaining, BLOCK_ROWS)):
            yield _block(block)

    return blocks


def _named(session: Session, sweep_ids: Ids) -> Sequence[str]:
    """The ids themselves, or those of every sweep, oldest first."""
    if sweep_ids is not None:
        return sweep_ids
    return session.scalars(select(SweepRow.id).order_by(SweepRow.created, SweepRow.id)).all()


def _run_rows(session: Session, sweep_ids: Ids) -> Iterator[Row]:
    for sweep_id in _named(session, sweep_ids):
        tags = find_sweep(session, sweep_id).tags
        query = select(RunRow).where(RunRow.sweep_id == sweep_id).order_by(RunRow.position)
        for row in session.scalars(query, execution_options={"yield_per": BLOCK_ROWS}):
            run = show_run(row, tags)
            yield (run.id, *(getattr(run, name) for name in RUNS[1:]))


def _history_blocks(session: Session, sweep_ids: Ids) -> Iterator[bytes]:
    # Hundreds of thousands of rows: the start of the line is made once a chunk, the numbers are not quoted.
    for sweep_id in _named(session, sweep_ids):
        for run_id, metric, series in iter_history(session, [sweep_id]):
            start = _block([(run_id, metric)]).decode().rstrip("\n")
            values, steps, times = decimal_values(series.values), series.steps.tolist(), series.times.tolist()
            lines = [
                f"{start},{step},{time!r},{value!r}\n"
                for step, time, value in zip(steps, times, values, strict=True)
            ]
            yield "".join(lines).encode()


def _cell_rows(session: Session, sweep_ids: Ids) -> Iterator[Row]:
    for sweep_id in _named(session, sweep_ids):
        for cell in sweep_cells(session, sweep_id, Reading()):
            yield (sweep_id, *(getattr(cell, name) for name in CELLS[1:]))


def _laws(session: Session, sweep_ids: Ids) -> Iterator[tuple[SweepRow, LawItem]]:
    for sweep_id in _named(session, sweep_ids):
        sweep = find_sweep(session, sweep_id)
        for target in ("alpha", "lr"):
            for law in sweep_laws(session, sweep_id, Reading(), target=target):
                yield sweep, law


def _optimum_rows(session: Session, sweep_ids: Ids) -> Iterator[Row]:
    for sweep, law in _laws(session, sweep_ids):
        for optimum in law.optima:
            yield (
                *(sweep.id, sweep.workload, optimum.method, optimum.lr, optimum.rank),
                *(optimum.value, optimum.low, optimum.high, optimum.basin_low, optimum.basin_high),
                *(optimum.loss, optimum.censored, optimum.num_seeds, optimum.target),
                *(optimum.alpha, optimum.lr_ratio),
            )


def _law_rows(session: Session, sweep_ids: Ids) -> Iterator[Row]:
    for sweep, law in _laws(session, sweep_ids):
        fit = [getattr(law.fit, name, None) for name in LAW[4:10]]
        counts = [getattr(law, name) for name in LAW[10:18]]
        bend = [getattr(law.fit, name, None) for name in LAW[18:]]
        yield (sweep.id, sweep.workload, law.method, law.lr, *fit, *counts, *bend)


def _probe_rows(session: Session, sweep_ids: Ids) -> Iterator[Row]:
    """One row a number; a probe without numbers gives one row that says why in ``error``."""
    query = select(ProbeRow).order_by(ProbeRow.created, ProbeRow.id)
    if sweep_ids is not None:
        query = query.where(ProbeRow.sweep_id.in_(sweep_ids))
    for probe in session.scalars(query):
        head = (probe.id, probe.run_id, probe.step, probe.space)
        numbers = (probe.result or {}).get("rows", [])
        for number in numbers:
            yield (*head, *(number.get(name) for name in ("kind", "index", "value", "error")))
        if not numbers:
            yield (*head, probe.kind, None, None, probe.error or probe.state)


EXPORTS: dict[str, tuple[Sequence[str], Callable[[Session, Ids], Iterator[bytes]]]] = {
    "runs": (RUNS, _in_blocks(_run_rows)),
    "history": (HISTORY, _history_blocks),
    "cells": (CELLS, _in_blocks(_cell_rows)),
    "optima": (OPTIMA, _in_blocks(_optimum_rows)),
    "law": (LAW, _in_blocks(_law_rows)),
    "probes": (PROBES, _in_blocks(_probe_rows)),
}
