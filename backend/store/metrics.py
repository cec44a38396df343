"""Metric curves as chunks of 256 float32 values.

A curve is written in order of steps. Its tail chunk is rewritten until it is full, so a point costs about
four bytes and a curve of 1,000 points four rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from backend.store.tables import ChunkRow, RunRow

CHUNK_VALUES = 256
# SQLite allows 32,766 bound parameters; PostgreSQL 65,535.
IDS_PER_QUERY = 5_000


@dataclass(frozen=True)
class Series:
    """One metric of one run: ``steps`` int64, ``values`` float32, ``times`` float64 (epoch seconds)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float32]
    times: NDArray[np.float64]


def append_points(
    session: Session,
    run_id: str,
    metric: str,
    *,
    steps: Sequence[int] | NDArray[np.int64],
    values: Sequence[float] | NDArray[np.floating],
    token: int,
    now: float,
) -> int:
    """Append points with steps above the last stored one; others are already there and are left out.

    Returns:
        How many points were new.
    """
    step = np.asarray(steps, dtype=np.int64)
    value = np.asarray(values, dtype="<f4")
    tail = session.scalars(
        select(ChunkRow)
        .where(ChunkRow.run_id == run_id, ChunkRow.metric == metric)
        .order_by(ChunkRow.chunk.desc())
        .limit(1)
    ).first()
    order = np.argsort(step, kind="stable")
    step, value = step[order], value[order]
    if tail is not None:
        fresh = step > _chunk_steps(tail)[-1]
        step, value = step[fresh], value[fresh]
    num_new = len(step)
    if num_new == 0:
        return 0
    chunk = 0
    if tail is not None:
        chunk = tail.chunk
        if tail.n < CHUNK_VALUES:
            step = np.concatenate([_chunk_steps(tail), step])
            value = np.concatenate([np.frombuffer(tail.data, dtype="<f4"), value])
            session.delete(tail)
            session.flush()
        else:
            chunk += 1
    for start in range(0, len(step), CHUNK_VALUES):
        part = slice(start, start + CHUNK_VALUES)
        session.add(_make_chunk(run_id, metric, chunk, step[part], value[part], token=token, now=now))
        chunk += 1
    session.flush()
    return num_new


class CurveWriter:
    """Writes the curves of a pack, whose runs all have the same steps, without reading them back.

    Only the owner of the pack's job writes its curves, so their tails are kept here and each write is one
    batched upsert. ``add`` collects, ``write`` stores what is new.
    """

    def __init__(self, session: Session, run_ids: Sequence[str], *, token: int) -> None:
        self.run_ids = list(run_ids)
        self.token = token
        self._chunk: dict[str, int] = {}
        self._steps: dict[str, NDArray[np.int64]] = {}
        self._values: dict[str, NDArray[np.float32]] = {}
        self._dirty: set[str] = set()
        for metric in list_metrics(session, run_ids):
            self._continue_tail(session, metric)

    def add(self, metric: str, steps: NDArray[np.int64], values: NDArray[np.floating]) -> None:
        """Points of every run: ``steps`` (k,) ascending, ``values`` (runs, k)."""
        self._chunk.setdefault(metric, 0)
        empty_steps, empty_values = np.empty(0, dtype=np.int64), np.empty((len(self.run_ids), 0), dtype="<f4")
        self._steps[metric] = np.concatenate([self._steps.get(metric, empty_steps), steps])
        self._values[metric] = np.concatenate(
            [self._values.get(metric, empty_values), values.astype("<f4")], axis=1
        )
        self._dirty.add(metric)

    def write(self, session: Session, *, now: float) -> None:
        """Upsert every chunk that has changed; full chunks are then forgotten."""
        rows = []
        for metric in sorted(self._dirty):
            steps, values = self._steps[metric], self._values[metric]
            for start in range(0, len(steps), CHUNK_VALUES):
                stop = min(start + CHUNK_VALUES, len(steps))
                rows += [
                    _chunk_columns(
                        run_id,
                        metric,
                        self._chunk[metric] + start // CHUNK_VALUES,
                        steps[start:stop],
                        values[index, start:stop],
                        token=self.token,
                        now=now,
                    )
                    for index, run_id in enumerate(self.run_ids)
                ]
            full = len(steps) // CHUNK_VALUES
            self._chunk[metric] += full
            self._steps[metric] = steps[full * CHUNK_VALUES :]
            self._values[metric] = values[:, full * CHUNK_VALUES :]
        self._dirty.clear()
        if rows:
            session.execute(_upsert(session), rows)

    def _continue_tail(self, session: Session, metric: str) -> None:
        tails = read_metric(session, self.run_ids, metric)
        count = {len(series.steps) for series in tails.values()}
        assert len(tails) == len(self.run_ids), "runs of a pack have the same metrics"
        assert len(count) == 1, "runs of a pack have curves of equal length"
        full = count.pop() // CHUNK_VALUES
        first = full * CHUNK_VALUES
        self._chunk[metric] = full
        self._steps[metric] = tails[self.run_ids[0]].steps[first:]
        self._values[metric] = np.stack([tails[run_id].values[first:] for run_id in self.run_ids])


def _upsert(session: Session) -> Any:
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    statement = insert(ChunkRow)
    changed = ("start_step", "stride", "n", "time", "token", "data", "steps")
    return statement.on_conflict_do_update(
        index_elements=[ChunkRow.run_id, ChunkRow.metric, ChunkRow.chunk],
        set_={name: statement.excluded[name] for name in changed},
    )


def drop_after_step(session: Session, run_ids: Sequence[str], step: int) -> None:
    """Delete every point of these runs after ``step``: what a resumed attempt will write again."""
    for ids in _batches(run_ids):
        chunks = session.scalars(select(ChunkRow).where(ChunkRow.run_id.in_(ids))).all()
        for chunk in chunks:
            steps = _chunk_steps(chunk)
            keep = int(np.searchsorted(steps, step, side="right"))
            if keep == len(steps):
                continue
            session.delete(chunk)
            session.flush()
            if keep:
                values = np.frombuffer(chunk.data, dtype="<f4")[:keep]
                session.add(
                    _make_chunk(
                        chunk.run_id,
                        chunk.metric,
                        chunk.chunk,
                        steps[:keep],
                        values,
                        token=chunk.token,
                        now=chunk.time,
                    )
                )
    session.flush()


def read_metric(
    session: Session, run_ids: Sequence[str], metric: str, *, from_step: int | None = None
) -> dict[str, Series]:
    """The metric of each run that has it; with ``from_step`` only points after that step."""
    parts: dict[str, list[Series]] = defaultdict(list)
    columns = _COLUMNS
    for ids in _batches(run_ids):
        query = select(*columns).where(ChunkRow.metric == metric, ChunkRow.run_id.in_(ids))
        for row in session.execute(query.order_by(ChunkRow.run_id, ChunkRow.chunk)):
            parts[row.run_id].append(_series(row, from_step))
    return {run_id: _join(series) for run_id, series in parts.items()}


def list_metrics(session: Session, run_ids: Sequence[str]) -> list[str]:
    """Names of all metrics that any of these runs has, sorted."""
    names: set[str] = set()
    for ids in _batches(run_ids):
        names.update(session.scalars(select(ChunkRow.metric).where(ChunkRow.run_id.in_(ids)).distinct()))
    return sorted(names)


def iter_history(session: Session, sweep_ids: Sequence[str] | None) -> Iterator[tuple[str, str, Series]]:
    """Every (run id, metric, points) of the sweeps (all if None), run by run in sweep order, streamed."""
    query = select(*_COLUMNS).join(RunRow, RunRow.id == ChunkRow.run_id)
    if sweep_ids is not None:
        query = query.where(RunRow.sweep_id.in_(sweep_ids))
    query = query.order_by(RunRow.sweep_id, RunRow.position, ChunkRow.metric, ChunkRow.chunk)
    for row in session.execute(query, execution_options={"yield_per": 256}):
        yield row.run_id, row.metric, _series(row, None)


_COLUMNS = (
    ChunkRow.run_id,
    ChunkRow.metric,
    ChunkRow.chunk,
    ChunkRow.start_step,
    ChunkRow.stride,
    ChunkRow.n,
    ChunkRow.time,
    ChunkRow.data,
    ChunkRow.steps,
)


def decimal_values(values: NDArray[np.float32]) -> list[float]:
    """Stored values as the shortest decimals (7 to 9 digits) that read back as the same float32.

    JSON and CSV both give these, so that they agree to the last digit and are half as long as the float32
    written out as a float64. NaN and infinity stay what they are.

    >>> decimal_values(np.array([0.1, 1 / 3, 16777217], dtype=np.float32))
    [0.1, 0.33333334, 16777216.0]
    """
    with np.errstate(invalid="ignore", over="ignore"):  # odd NaNs; the largest float32 rounded up
        exact = values.astype(np.float64)
        some = np.isfinite(exact) & (exact != 0)
        x = exact[some]
        magnitude = np.floor(np.log10(np.abs(x))).astype(np.int64)
        shortest = _to_digits(x, magnitude, 9)
        for digits in (8, 7):
            shorter = _to_digits(x, magnitude, digits)
            shortest = np.where(shorter.astype(np.float32) == values[some], shorter, shortest)
    exact[some] = shortest
    numbers: list[float] = exact.tolist()
    return numbers


def _to_digits(x: NDArray[np.float64], magnitude: NDArray[np.int64], digits: int) -> NDArray[np.float64]:
    power = digits - 1 - magnitude
    # Always a positive power of ten: negative ones are not exact.
    ten = 10.0 ** np.abs(power)
    return np.where(power >= 0, np.rint(x * ten) / ten, np.rint(x / ten) * ten)


def _make_chunk(
    run_id: str,
    metric: str,
    chunk: int,
    steps: NDArray[np.int64],
    values: NDArray[np.float32],
    *,
    token: int,
    now: float,
) -> ChunkRow:
    return ChunkRow(**_chunk_columns(run_id, metric, chunk, steps, values, token=token, now=now))


def _chunk_columns(
    run_id: str,
    metric: str,
    chunk: int,
    steps: NDArray[np.int64],
    values: NDArray[np.float32],
    *,
    token: int,
    now: float,
) -> dict[str, Any]:
    strides = np.diff(steps)
    regular = len(steps) == 1 or bool((strides == strides[0]).all())
    return {
        "run_id": run_id,
        "metric": metric,
        "chunk": chunk,
        "start_step": int(steps[0]),
        "stride": int(strides[0]) if regular and len(steps) > 1 else 1,
        "n": len(steps),
        "time": now,
        "token": token,
        "data": values.astype("<f4").tobytes(),
        "steps": None if regular else steps.astype("<i8").tobytes(),
    }


def _chunk_steps(row: ChunkRow) -> NDArray[np.int64]:
    if row.steps is not None:
        return np.frombuffer(row.steps, dtype="<i8").astype(np.int64)
    return row.start_step + row.stride * np.arange(row.n, dtype=np.int64)


def _series(row: object, from_step: int | None) -> Series:
    steps = _chunk_steps(row)  # type: ignore[arg-type]  # a result row with the same names
    values = np.frombuffer(row.data, dtype="<f4")  # type: ignore[attr-defined]
    times = np.full(len(steps), row.time)  # type: ignore[attr-defined]
    if from_step is None:
        return Series(steps, values, times)
    first = int(np.searchsorted(steps, from_step, side="right"))
    return Series(steps[first:], values[first:], times[first:])


def _join(parts: Sequence[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    return Series(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.times for part in parts]),
    )


def _batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + IDS_PER_QUERY] for start in range(0, len(ids), IDS_PER_QUERY))
