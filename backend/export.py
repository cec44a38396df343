"""CSV exports: complete, streamed, in full precision, safe to open in a spreadsheet.

A float is written as Python's ``repr``, so that it reads back as the same number that the JSON answers give.
Nothing is sampled. A text cell that a spreadsheet would execute gets an apostrophe in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Any, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.services.analysis import collapses
from backend.services.outcomes import Reading, read_sweep, sweep_cells
from backend.services.presenters import show_run
from backend.store.engines import Store
from backend.store.metrics import decimal_values, iter_history
from backend.store.sweeps import find_sweep
from backend.store.tables import ProbeRow, RunRow, SweepRow
from lora_alpha.analysis.bounded import bounded_optima
from lora_alpha.analysis.cells import constant_alpha
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.law import fit_laws
from lora_alpha.wire.analysis import CollapseFit, CollapseScore, Target
from lora_alpha.wire.client import CsvKind

# Each table: column → where in a row its value is. A new column is a line here; it goes to the end.
Columns = dict[str, str]


def _alike(record: str, names: str) -> Columns:
    """Columns that are called as the fields of ``record`` are."""
    return {name: f"{record}.{name}" for name in names.split()}


# What the numbers are of.
SAID: Columns = {
    "metric": "metric.name",
    **_alike("metric", "goal unit"),
    **_alike("reading", "objective at_step steps_to"),
}
RUNS: Columns = {
    "run_id": "run.id",
    **_alike("run", "sweep_id name state diverged workload method rank alpha scale lr seed steps final_loss"),
    **_alike("run", "best_loss best_step forgetting started_at duration_s tags error"),
    **_alike("run", "lr_ratio alpha_schedule"),
    # The number of the run that counts, and why there is none: pending, failed, unreached, unrecorded.
    "value": "outcome.loss",
    "status": "outcome.status",
    **SAID,
}
HISTORY = ("run_id", "metric", "step", "time", "value")
CELLS: Columns = {
    "sweep_id": "sweep.id",
    **_alike("cell", "method rank alpha scale lr n mean std ci_low ci_high num_diverged num_failed"),
    **_alike("cell", "num_pending forgetting lr_ratio alpha_schedule num_unreached num_unrecorded"),
    **SAID,
}
OPTIMA: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("optimum", "method lr rank"),
    "alpha_star": "optimum.value",
    "alpha_low": "optimum.low",
    "alpha_high": "optimum.high",
    **_alike("optimum", "basin_low basin_high loss censored num_seeds target alpha lr_ratio"),
    **SAID,
    **_alike("bounded", "max_forgetting"),
    **{
        f"bounded_{name}": f"bounded.{name}"
        for name in ["alpha", "value", "forgetting", "boundary_low", "boundary_high", "price"]
    },
}
LAW: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("law", "method lr"),
    **_alike("law.fit", "exponent exponent_low exponent_high coefficient coefficient_low coefficient_high"),
    **_alike("law", "num_ranks num_censored num_seeds num_diverged num_excluded target alpha lr_ratio"),
    **_alike("law.fit", "bend bend_low bend_high"),
    **SAID,
}
VERDICTS: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("verdict", "method rank lr_ratio base_alpha base_lr best_alpha best_lr loss_alpha_route"),
    **_alike("verdict", "loss_lr_route diverged_alpha_route diverged_lr_route difference low high margin"),
    **_alike("verdict", "gap gap_low gap_high tolerance error freedom num_seeds verdict limits reason"),
    **SAID,
}
DECIDING: Columns = {
    "sweep_id": "sweep.id",
    **_alike("cell", "method rank alpha lr lr_ratio seed"),
}
PROBES: Columns = {
    "probe_id": "probe.id",
    **_alike("probe", "run_id step space"),
    **_alike("number", "kind index value error"),
}
# A row a coordinate, the fitted one last; ``alike`` with semicolons.
COLLAPSE: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("score", "method lr_ratio coordinate"),
    "alpha_exponent": "exponents.alpha.value",
    "alpha_exponent_low": "exponents.alpha.low",
    "alpha_exponent_high": "exponents.alpha.high",
    "lr_exponent": "exponents.lr.value",
    "rank_exponent": "exponents.rank.value",
    "rank_exponent_low": "exponents.rank.low",
    "rank_exponent_high": "exponents.rank.high",
    **_alike("score", "score"),
    **_alike("fit", "ceiling"),
    **_alike("score", "behind behind_low behind_high alike compatible num_compared num_alone"),
    **_alike("fit", "num_curves num_seeds num_diverged verdict"),
    **SAID,
}
COLLAPSE_POINTS: Columns = {
    "sweep_id": "sweep.id",
    **_alike("score", "method lr_ratio coordinate"),
    **_alike("point", "rank lr alpha x loss level"),
    **SAID,
}

# What makes a spreadsheet take a cell for a formula, full-width forms included.
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
BLOCK_ROWS = 2_000

Row = Mapping[str, Any]  # the records that the columns speak of


@dataclass(frozen=True)
class Asked:
    """What an export is of: these sweeps (None: all), how their runs are read, a bound on forgetting."""

    sweep_ids: Sequence[str] | None = None
    reading: Reading = field(default_factory=Reading)
    max_forgetting: float | None = None


# Exports that depend on the reading.
READ = ("runs", "cells", "optima", "law", "collapse", "collapse_points", "verdicts", "deciding")
Export = tuple[Sequence[str], Callable[[Session, Asked], Iterator[bytes]]]  # columns, and lines in blocks


def csv_blocks(store: Store, kind: CsvKind, asked: Asked) -> Iterator[bytes]:
    """The export ``kind`` as UTF-8 blocks, header first; what is asked for must hold: see ``check``."""
    columns, blocks = EXPORTS[kind]
    yield _block([columns])
    with store.read() as session:
        yield from blocks(session, asked)


def check(store: Store, kind: CsvKind, asked: Asked) -> None:
    """Make sure that every sweep exists and can be read so, before anything is sent.

    Raises:
        NotFound: If a sweep does not exist.
        InvalidSpec: If a sweep has not recorded the metric, or it has no direction.
    """
    with store.read() as session:
        for sweep_id in asked.sweep_ids or ():
            find_sweep(session, sweep_id)
        if asked.reading.metric is not None and kind in READ:
            for sweep_id in _named(session, asked):
                read_sweep(session, sweep_id, asked.reading)


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
    if isinstance(value, list | tuple):
        return text_cell(";".join(value))
    return repr(value)


def _block(rows: Iterable[Iterable[Any]]) -> bytes:
    return "".join(",".join(_quoted(text_cell(cell)) for cell in row) + "\n" for row in rows).encode()


def _quoted(text: str) -> str:
    # Python's csv.writer leaves a lone carriage return bare, which its reader then refuses.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _in_blocks(columns: Columns, rows: Callable[[Session, Asked], Iterator[Row]]) -> Export:
    paths = [path.split(".") for path in columns.values()]

    def line(row: Row) -> list[Any]:
        return [reduce(_part, fields, row[record]) for record, *fields in paths]

    def blocks(session: Session, asked: Asked) -> Iterator[bytes]:
        remaining = map(line, rows(session, asked))
        while block := list(itertools.islice(remaining, BLOCK_ROWS)):
            yield _block(block)

    return tuple(columns), blocks


def _part(record: Any, name: str) -> Any:
    """A field, or a key of a dict; None of what is missing."""
    if record is None:
        return None
    return record.get(name) if isinstance(record, dict) else getattr(record, name)


def _named(session: Session, asked: Asked) -> Sequence[str]:
    """The ids themselves, or those of every sweep, oldest first."""
    if asked.sweep_ids is not None:
        return asked.sweep_ids
    return session.scalars(select(SweepRow.id).order_by(SweepRow.created, SweepRow.id)).all()


def _run_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for sweep_id in _named(session, asked):
        tags = find_sweep(session, sweep_id).tags
        read = read_sweep(session, sweep_id, asked.reading)
        said = {"metric": read.metric, "reading": asked.reading}
        query = select(RunRow).where(RunRow.sweep_id == sweep_id).order_by(RunRow.position)
        for row in session.scalars(query, execution_options={"yield_per": BLOCK_ROWS}):
            # A run that came in between is in the next export.
            if (outcome := read.outcomes.get(row.id)) is not None:
                yield {"run": show_run(row, tags), "outcome": outcome, **said}


def _history_blocks(session: Session, asked: Asked) -> Iterator[bytes]:
    # Hundreds of thousands of rows: the start of the line is made once a chunk, the numbers are not quoted.
    for sweep_id in _named(session, asked):
        for run_id, metric, series in iter_history(session, [sweep_id]):
            start = _block([(run_id, metric)]).decode().rstrip("\n")
            values, steps, times = decimal_values(series.values), series.steps.tolist(), series.times.tolist()
            lines = [
                f"{start},{step},{time!r},{value!r}\n"
                for step, time, value in zip(steps, times, values, strict=True)
            ]
            yield "".join(lines).encode()


def _cell_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for sweep_id in _named(session, asked):
        sweep = find_sweep(session, sweep_id)
        for cell in sweep_cells(session, sweep_id, asked.reading):
            yield {"sweep": sweep, "cell": cell, "metric": cell.metric, "reading": asked.reading}


def _law_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for sweep_id in _named(session, asked):
        sweep = find_sweep(session, sweep_id)
        read = read_sweep(session, sweep_id, asked.reading)
        said = {"sweep": sweep, "metric": read.metric, "reading": asked.reading}
        for target in get_args(Target):
            for law in fit_laws(read.cells, target=target):
                yield {**said, "law": law, "cells": read.cells}


def _optimum_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for row in _law_rows(session, asked):
        within = {}
        if asked.max_forgetting is not None and row["law"].target == "alpha":
            items = bounded_optima(row["cells"], max_forgetting=asked.max_forgetting)
            within = {(item.method, item.rank, item.lr, item.lr_ratio): item for item in items}
        for optimum in row["law"].optima:
            key = (optimum.method, optimum.rank, optimum.lr, optimum.lr_ratio)
            yield {**row, "optimum": optimum, "bounded": within.get(key)}


def _verdict_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for sweep_id in _named(session, asked):
        sweep = find_sweep(session, sweep_id)
        read = read_sweep(session, sweep_id, asked.reading)
        said = {"sweep": sweep, "metric": read.metric, "reading": asked.reading}
        for verdict in compare_routes(constant_alpha(read.cells)):
            yield {**said, "verdict": verdict}


def _deciding_rows(session: Session, asked: Asked) -> Iterator[Row]:
    """One row a run that would decide an open verdict."""
    for row in _verdict_rows(session, asked):
        for cell in row["verdict"].deciding_cells:
            yield from ({**row, "cell": configuration} for configuration in cell.configurations)


def _collapse_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for sweep_id in _named(session, asked):
        read = read_sweep(session, sweep_id, asked.reading)
        said = {"sweep": find_sweep(session, sweep_id), "metric": read.metric, "reading": asked.reading}
        for fit, scores in collapses(read.cells):
            for score in scores:
                given = dict(zip(("alpha", "lr", "rank"), score.exponents, strict=False))
                named = {name: {"value": value} for name, value in given.items()}
                yield {**said, "fit": fit, "score": score, "exponents": named}
            if fit.lr is not None or fit.alpha is not None:
                yield {**said, "fit": fit, "score": fit.fitted or _unfitted(fit), "exponents": fit}


def _unfitted(fit: CollapseFit) -> CollapseScore:
    """Exponents of which some are not decided have no coordinate and no points."""
    return CollapseScore(fit.method, "", None, 0, 0, (), lr_ratio=fit.lr_ratio)


def _collapse_point_rows(session: Session, asked: Asked) -> Iterator[Row]:
    for row in _collapse_rows(session, asked):
        for point in row["score"].points:
            yield {**row, "point": point}


def _probe_rows(session: Session, asked: Asked) -> Iterator[Row]:
    """One row a number; a probe without numbers gives one row that says why in ``error``."""
    query = select(ProbeRow).order_by(ProbeRow.created, ProbeRow.id)
    if asked.sweep_ids is not None:
        query = query.where(ProbeRow.sweep_id.in_(asked.sweep_ids))
    for probe in session.scalars(query):
        numbers = (probe.result or {}).get("rows", [])
        none = {"kind": probe.kind, "error": probe.error or probe.state}
        for number in numbers or [none]:
            yield {"probe": probe, "number": number}


EXPORTS: dict[CsvKind, Export] = {
    "runs": _in_blocks(RUNS, _run_rows),
    "history": (HISTORY, _history_blocks),
    "cells": _in_blocks(CELLS, _cell_rows),
    "optima": _in_blocks(OPTIMA, _optimum_rows),
    "law": _in_blocks(LAW, _law_rows),
    "probes": _in_blocks(PROBES, _probe_rows),
    "collapse": _in_blocks(COLLAPSE, _collapse_rows),
    "collapse_points": _in_blocks(COLLAPSE_POINTS, _collapse_point_rows),
    "verdicts": _in_blocks(VERDICTS, _verdict_rows),
    "deciding": _in_blocks(DECIDING, _deciding_rows),
}
