"""CSV exports: complete, streamed, in full precision, safe to open in a spreadsheet.

A float is written as Python's ``repr``, so that it reads back as the same number that the JSON answers give.
Nothing is sampled. A text cell that a spreadsheet would execute gets an apostrophe in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Any, get_args

from sqlalchemy import select

from backend.services.analysis import collapses
from backend.services.horizon import horizon
from backend.services.outcomes import Reading, SweepRead, read_sweep
from backend.services.presenters import show_run
from backend.store.engines import Store
from backend.store.metrics import decimal_values, iter_history
from backend.store.sweeps import find_sweep
from backend.store.tables import ProbeRow, RunRow, SweepRow
from lora_alpha.analysis.bounded import bounded_optima
from lora_alpha.analysis.cells import constant_alpha
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.law import fit_laws, fit_laws_and_draws
from lora_alpha.analysis.recommend import recommend
from lora_alpha.errors import FitError
from lora_alpha.wire.analysis import CollapseFit, CollapseScore, Target
from lora_alpha.wire.queries import CSV_KINDS, CsvKind

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
HORIZON: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("horizon", "method lr alpha lr_ratio target"),
    **_alike("point", "step exponent exponent_low exponent_high"),
    **_alike("point", "coefficient coefficient_low coefficient_high"),
    **_alike("point", "num_ranks num_censored num_seeds num_diverged num_pending decaying warming"),
    **_alike("point", "reasons verdict"),
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
RULE_COSTS: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("law", "method lr lr_ratio"),
    **_alike("cost", "rank rule alpha measured diverged loss best_loss cost excess"),
    **_alike("cost", "regret regret_low regret_high regret_share regret_share_low regret_share_high"),
    **_alike("cost", "unit share_of reason"),
    **SAID,
}
ADVICE: Columns = {
    "sweep_id": "sweep.id",
    "workload": "sweep.workload",
    **_alike("law", "method lr lr_ratio"),
    "rank": "optimum.rank",
    **_alike("advice", "alpha scale alpha_low alpha_high basin_low basin_high basis expected_loss"),
    **_alike("advice", "alpha_estimate kappa kappa_low kappa_high kappa_num_lrs num_supporting_runs"),
    "reason": "reason",
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


# Exports that depend on the reading: all but what was recorded or probed as it is.
READ = tuple(kind for kind in CSV_KINDS if kind not in {"history", "probes"})
Export = tuple[Sequence[str], Callable[[Store, Asked], Iterator[bytes]]]  # columns, and lines in blocks


def csv_blocks(store: Store, kind: CsvKind, asked: Asked) -> Iterator[bytes]:
    """The export ``kind`` as UTF-8 blocks, header first; what is asked for must hold: see ``check``."""
    columns, blocks = EXPORTS[kind]
    yield _block([columns])
    yield from blocks(store, asked)


def check(store: Store, kind: CsvKind, asked: Asked) -> None:
    """Make sure that every sweep exists and can be read so, before anything is sent.

    Raises:
        NotFound: If a sweep does not exist.
        InvalidSpec: If a sweep has not recorded the metric, or it has no direction.
    """
    sweeps = _sweeps(store, asked)
    if asked.reading.metric is not None and kind in READ:
        with store.read() as session:
            for sweep in sweeps:
                read_sweep(session, sweep.id, asked.reading)


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


def _in_blocks(columns: Columns, rows: Callable[[Store, Asked], Iterator[Row]]) -> Export:
    paths = [path.split(".") for path in columns.values()]

    def line(row: Row) -> list[Any]:
        return [reduce(_part, fields, row[record]) for record, *fields in paths]

    def blocks(store: Store, asked: Asked) -> Iterator[bytes]:
        remaining = map(line, rows(store, asked))
        while block := list(itertools.islice(remaining, BLOCK_ROWS)):
            yield _block(block)

    return tuple(columns), blocks


def _part(record: Any, name: str) -> Any:
    """A field, or a key of a dict; None of what is missing."""
    if record is None:
        return None
    return record.get(name) if isinstance(record, dict) else getattr(record, name)


def _sweeps(store: Store, asked: Asked) -> list[SweepRow]:
    """The sweeps that are named, or every sweep, oldest first."""
    with store.read() as session:
        if asked.sweep_ids is not None:
            return [find_sweep(session, sweep_id) for sweep_id in asked.sweep_ids]
        return list(session.scalars(select(SweepRow).order_by(SweepRow.created, SweepRow.id)))


def _run_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for sweep in _sweeps(store, asked):
        query = select(RunRow).where(RunRow.sweep_id == sweep.id).order_by(RunRow.position)
        with store.read() as session:
            read = read_sweep(session, sweep.id, asked.reading)
            said = {"metric": read.metric, "reading": asked.reading}
            for row in session.scalars(query, execution_options={"yield_per": BLOCK_ROWS}):
                # A run that came in between is in the next export.
                if (outcome := read.outcomes.get(row.id)) is not None:
                    yield {"run": show_run(row, sweep.tags), "outcome": outcome, **said}


def _history_blocks(store: Store, asked: Asked) -> Iterator[bytes]:
    # Hundreds of thousands of rows: the start of the line is made once a chunk, the numbers are not quoted.
    for sweep in _sweeps(store, asked):
        with store.read() as session:
            for run_id, metric, series in iter_history(session, [sweep.id]):
                start = _block([(run_id, metric)]).decode().rstrip("\n")
                values, steps = decimal_values(series.values), series.steps.tolist()
                lines = [
                    f"{start},{step},{time!r},{value!r}\n"
                    for step, time, value in zip(steps, series.times.tolist(), values, strict=True)
                ]
                yield "".join(lines).encode()


def _reads(store: Store, asked: Asked) -> Iterator[tuple[SweepRow, SweepRead]]:
    """Each sweep with its runs; the transaction is over before anything is computed from them."""
    for sweep in _sweeps(store, asked):
        with store.read() as session:
            read = read_sweep(session, sweep.id, asked.reading)
        yield sweep, read


def _cell_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for sweep, read in _reads(store, asked):
        for cell in read.cells:
            yield {"sweep": sweep, "cell": cell, "metric": cell.metric, "reading": asked.reading}


def _law_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for sweep, read in _reads(store, asked):
        cells = read.cells
        said = {"sweep": sweep, "metric": read.metric, "reading": asked.reading}
        for target in get_args(Target):
            for law in fit_laws(cells, target=target):
                yield {**said, "law": law, "cells": cells}


def _optimum_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for row in _law_rows(store, asked):
        within = {}
        if asked.max_forgetting is not None and row["law"].target == "alpha":
            items = bounded_optima(row["cells"], max_forgetting=asked.max_forgetting)
            within = {(item.method, item.rank, item.lr, item.lr_ratio): item for item in items}
        for optimum in row["law"].optima:
            key = (optimum.method, optimum.rank, optimum.lr, optimum.lr_ratio)
            yield {**row, "optimum": optimum, "bounded": within.get(key)}


def _verdict_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for sweep, read in _reads(store, asked):
        said = {"sweep": sweep, "metric": read.metric, "reading": asked.reading}
        for verdict in compare_routes(constant_alpha(read.cells)):
            yield {**said, "verdict": verdict}


def _deciding_rows(store: Store, asked: Asked) -> Iterator[Row]:
    """One row a run that would decide an open verdict."""
    for row in _verdict_rows(store, asked):
        for cell in row["verdict"].deciding_cells:
            yield from ({**row, "cell": configuration} for configuration in cell.configurations)


def _horizon_rows(store: Store, asked: Asked) -> Iterator[Row]:
    """Of the metric itself, whatever ``steps_to`` says: a horizon is read step by step."""
    reading = replace(asked.reading, steps_to=None)
    for sweep in _sweeps(store, asked):
        for target in get_args(Target):
            found = horizon(store, sweep.id, reading, target=target)
            said = {"sweep": sweep, "metric": found.metric, "reading": reading}
            for law in found.horizons:
                for point in law.points:
                    yield {**said, "horizon": law, "point": point}


def _collapse_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for sweep, read in _reads(store, asked):
        said = {"sweep": sweep, "metric": read.metric, "reading": asked.reading}
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


def _collapse_point_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for row in _collapse_rows(store, asked):
        for point in row["score"].points:
            yield {**row, "point": point}


def _probe_rows(store: Store, asked: Asked) -> Iterator[Row]:
    """One row a number; a probe without numbers gives one row that says why in ``error``."""
    query = select(ProbeRow).order_by(ProbeRow.created, ProbeRow.id)
    if asked.sweep_ids is not None:
        query = query.where(ProbeRow.sweep_id.in_(asked.sweep_ids))
    with store.read() as session:
        for probe in session.scalars(query):
            numbers = (probe.result or {}).get("rows", [])
            none = {"kind": probe.kind, "error": probe.error or probe.state}
            for number in numbers or [none]:
                yield {"probe": probe, "number": number}


def _rule_rows(store: Store, asked: Asked) -> Iterator[Row]:
    for row in _law_rows(store, asked):
        for cost in row["law"].rules:
            yield {**row, "cost": cost}


def _advice_rows(store: Store, asked: Asked) -> Iterator[Row]:
    """One row a curve; where there is no advice, ``reason`` says why."""
    for sweep, read in _reads(store, asked):
        said = {"sweep": sweep, "metric": read.metric, "reading": asked.reading}
        found = constant_alpha(read.cells)
        laws, draws = fit_laws_and_draws(found)
        for law in laws:
            beside = [one for one in laws if (one.method, one.lr_ratio) == (law.method, law.lr_ratio)]
            for optimum in law.optima:
                row = {**said, "law": law, "optimum": optimum, "advice": None, "reason": None}
                try:
                    row["advice"] = recommend(beside, found, rank=optimum.rank, lr=law.lr, draws=draws)
                except FitError as error:
                    row["reason"] = str(error)
                yield row


EXPORTS: dict[CsvKind, Export] = {
    "runs": _in_blocks(RUNS, _run_rows),
    "history": (HISTORY, _history_blocks),
    "cells": _in_blocks(CELLS, _cell_rows),
    "optima": _in_blocks(OPTIMA, _optimum_rows),
    "law": _in_blocks(LAW, _law_rows),
    "probes": _in_blocks(PROBES, _probe_rows),
    "rules": _in_blocks(RULE_COSTS, _rule_rows),
    "advice": _in_blocks(ADVICE, _advice_rows),
    "horizon": _in_blocks(HORIZON, _horizon_rows),
    "collapse": _in_blocks(COLLAPSE, _collapse_rows),
    "collapse_points": _in_blocks(COLLAPSE_POINTS, _collapse_point_rows),
    "verdicts": _in_blocks(VERDICTS, _verdict_rows),
    "deciding": _in_blocks(DECIDING, _deciding_rows),
}
