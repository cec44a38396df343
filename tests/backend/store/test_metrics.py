"""Curves in chunks: what is written comes back, in order, once, whatever the borders of the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from backend.store.metrics import (
    CHUNK_VALUES,
    CurveWriter,
    append_points,
    decimal_values,
    drop_after_step,
    iter_history,
    list_metrics,
    read_metric,
)
from backend.store.tables import ChunkRow

NOW = 1_800_000_000.0
BORDERS = [1, CHUNK_VALUES - 1, CHUNK_VALUES, CHUNK_VALUES + 1, 2 * CHUNK_VALUES, 2 * CHUNK_VALUES + 1]


@pytest.fixture
def run_id(add_sweep):
    (run_id,) = add_sweep(num_runs=1, job_id="job")
    return run_id


def append(store, run_id, steps, values=None, *, metric="loss", now=NOW):
    """Points whose values are their steps, unless given; how many were new."""
    values = np.asarray(steps, dtype=float) if values is None else values
    with store.write() as session:
        return append_points(session, run_id, metric, steps=steps, values=values, token=1, now=now)


def stored(store, run_id, metric="loss", **kwargs):
    with store.read() as session:
        return read_metric(session, [run_id], metric, **kwargs).get(run_id)


def steps_of(store, run_id, metric="loss", **kwargs):
    """Stored steps; fails where a value is not its step."""
    series = stored(store, run_id, metric, **kwargs)
    if series is None:
        return []
    assert series.values.tolist() == series.steps.tolist()
    assert len(series.times) == len(series.steps)
    return series.steps.tolist()


def chunks(store, run_id):
    """(index, first step, stride, number of values, whether it carries its own steps) of each chunk."""
    with store.read() as session:
        rows = session.scalars(select(ChunkRow).where(ChunkRow.run_id == run_id).order_by(ChunkRow.chunk))
        return [(row.chunk, row.start_step, row.stride, row.n, row.steps is not None) for row in rows]


# Appending


@pytest.mark.parametrize("batch", [1, 100, 256, 1000])
def test_points_come_back_in_order_however_they_were_cut(store, run_id, batch):
    steps = list(range(0, 1800, 3))
    for start in range(0, len(steps), batch):
        part = steps[start : start + batch]
        assert append(store, run_id, part) == len(part)
    assert steps_of(store, run_id) == steps
    assert chunks(store, run_id) == [(0, 0, 3, 256, False), (1, 768, 3, 256, False), (2, 1536, 3, 88, False)]


def test_points_that_are_there_already_are_left_out(store, run_id):
    append(store, run_id, range(10))
    assert append(store, run_id, range(5, 15), values=[-1.0] * 5 + [10.0, 11.0, 12.0, 13.0, 14.0]) == 5
    assert append(store, run_id, range(15)) == 0
    assert steps_of(store, run_id) == list(range(15))


def test_points_in_any_order_are_stored_by_step(store, run_id):
    append(store, run_id, [3, 1, 2])
    assert steps_of(store, run_id) == [1, 2, 3]


def test_irregular_steps_carry_their_own_numbers(store, run_id):
    steps = [0, 1, 2, 5, 9, 100, 2**40]
    append(store, run_id, steps, values=np.arange(7))
    assert stored(store, run_id).steps.tolist() == steps
    assert chunks(store, run_id) == [(0, 0, 1, 7, True)]
    append(store, run_id, [2**40 + 1], values=[7.0])
    assert stored(store, run_id).steps.tolist() == [*steps, 2**40 + 1]
    assert stored(store, run_id).values.tolist() == list(range(8))


def test_a_full_chunk_is_left_alone_when_the_next_one_grows(store, run_id):
    append(store, run_id, range(CHUNK_VALUES), now=1.0)
    append(store, run_id, [CHUNK_VALUES], now=2.0)
    append(store, run_id, [CHUNK_VALUES + 1], now=3.0)
    assert stored(store, run_id).times.tolist() == [1.0] * CHUNK_VALUES + [3.0] * 2


def test_values_that_are_not_finite_are_kept(store, run_id):
    values = [1.0, np.nan, np.inf, -np.inf, 3.4e38]
    append(store, run_id, range(5), values=values)
    np.testing.assert_array_equal(stored(store, run_id).values, np.array(values, dtype=np.float32))


def test_metrics_and_runs_do_not_mix(store, add_sweep):
    first, second = add_sweep(num_runs=2, job_id="job")
    append(store, first, [1, 2])
    append(store, first, [5], metric="other")
    append(store, second, [3])
    with store.read() as session:
        found = read_metric(session, [first, second], "loss")
        assert {run: series.steps.tolist() for run, series in found.items()} == {first: [1, 2], second: [3]}
        assert list_metrics(session, [first, second]) == ["loss", "other"]
        assert list_metrics(session, [second]) == ["loss"]
        assert read_metric(session, [first], "nothing") == {}


# A pack's writer


@pytest.mark.parametrize("num_points", BORDERS)
def test_a_writer_stores_what_appending_would(store, add_sweep, num_points):
    ids = add_sweep(num_runs=2, job_id="job")
    steps = np.arange(num_points)
    with store.write() as session:
        curves = CurveWriter(session, ids, token=1)
        for start in range(0, num_points, 100):
            part = steps[start : start + 100]
            curves.add("loss", part, np.stack([part, -part]))
            curves.write(session, now=NOW)
    append(store, ids[0], steps, metric="appended")
    assert steps_of(store, ids[0]) == steps_of(store, ids[0], "appended") == steps.tolist()
    assert stored(store, ids[1]).values.tolist() == (-steps).tolist()
    with store.read() as session:
        rows = session.scalars(select(ChunkRow).where(ChunkRow.run_id == ids[0])).all()
    told = {
        metric: [(row.chunk, row.n, row.start_step, row.data) for row in rows if row.metric == metric]
        for metric in ("loss", "appended")
    }
    assert sorted(told["loss"]) == sorted(told["appended"])


@pytest.mark.parametrize("num_points", BORDERS)
def test_the_next_attempts_writer_goes_on_where_the_last_one_stopped(store, add_sweep, num_points):
    ids = add_sweep(num_runs=2, job_id="job")
    edges = (0, num_points, num_points + 300)
    for token, (start, stop) in enumerate(zip(edges, edges[1:], strict=False), start=1):
        part = np.arange(start, stop)
        with store.write() as session:
            curves = CurveWriter(session, ids, token=token)
            curves.add("loss", part, np.stack([part, part]))
            curves.write(session, now=NOW)
    assert steps_of(store, ids[0]) == steps_of(store, ids[1]) == list(range(num_points + 300))


def test_a_rewritten_tail_replaces_the_one_before(store, add_sweep):
    ids = add_sweep(num_runs=1, job_id="job")
    with store.write() as session:
        curves = CurveWriter(session, ids, token=7)
        for step in range(3):
            curves.add("loss", np.array([step]), np.array([[float(step)]]))
            curves.write(session, now=NOW + step)
        curves.write(session, now=NOW + 99)  # nothing new, nothing written
    assert chunks(store, ids[0]) == [(0, 0, 1, 3, False)]
    assert stored(store, ids[0]).times.tolist() == [NOW + 2] * 3


def test_an_uncommitted_write_leaves_no_point(store, add_sweep):
    ids = add_sweep(num_runs=1, job_id="job")

    def die():
        with store.write() as session:
            curves = CurveWriter(session, ids, token=1)
            curves.add("loss", np.array([0]), np.array([[0.0]]))
            curves.write(session, now=NOW)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        die()
    assert stored(store, ids[0]) is None


# Dropping


@pytest.mark.parametrize("step", [-1, 0, 1, 254, 255, 256, 257, 510, 511, 512, 599, 600])
def test_dropping_keeps_the_step_itself_and_all_before(store, run_id, step):
    append(store, run_id, range(600))
    with store.write() as session:
        drop_after_step(session, [run_id], step)
    assert steps_of(store, run_id) == list(range(min(step + 1, 600)))
    append(store, run_id, range(min(step + 1, 600), 700))
    assert steps_of(store, run_id) == list(range(700))


def test_dropping_between_irregular_steps(store, run_id):
    append(store, run_id, [0, 7, 8, 30])
    with store.write() as session:
        drop_after_step(session, [run_id], 10)
    assert steps_of(store, run_id) == [0, 7, 8]


def test_dropping_spares_other_runs_and_takes_every_metric(store, add_sweep):
    first, second = add_sweep(num_runs=2, job_id="job")
    for run_id in (first, second):
        append(store, run_id, range(10))
        append(store, run_id, [0, 5, 10], metric="rare")
    with store.write() as session:
        drop_after_step(session, [first], 4)
    assert (steps_of(store, first), steps_of(store, first, "rare")) == ([0, 1, 2, 3, 4], [0])
    assert (steps_of(store, second), steps_of(store, second, "rare")) == (list(range(10)), [0, 5, 10])


# Reading


@pytest.mark.parametrize("from_step", [-1, 0, 254, 255, 256, 299, 300])
def test_reading_from_a_step_gives_only_later_points(store, run_id, from_step):
    append(store, run_id, range(300))
    assert steps_of(store, run_id, from_step=from_step) == list(range(from_step + 1, 300))


def test_reading_from_between_irregular_steps(store, run_id):
    append(store, run_id, [0, 7, 30])
    assert steps_of(store, run_id, from_step=10) == [30]


def test_a_history_gives_every_chunk_once_in_order_of_sweep_run_and_metric(store, add_sweep):
    one, two = add_sweep(num_runs=2, job_id="job", sweep_id="b")
    (other,) = add_sweep(num_runs=1, job_id="other", sweep_id="a")
    append(store, two, range(300))
    for run_id in (one, other):
        append(store, run_id, [1], metric="z")
        append(store, run_id, [2], metric="a")
    with store.read() as session:
        every = [(run, name, series.steps.tolist()) for run, name, series in iter_history(session, None)]
        some = [(run, name) for run, name, _ in iter_history(session, ["a"])]
        assert list(iter_history(session, [])) == []
    assert some == [(other, "a"), (other, "z")]
    assert every == [
        (other, "a", [2]),
        (other, "z", [1]),
        (one, "a", [2]),
        (one, "z", [1]),
        (two, "loss", list(range(256))),
        (two, "loss", list(range(256, 300))),
    ]


def test_decimals_are_short_and_read_back_as_the_same_float32():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=2000) * 10.0 ** rng.integers(-12, 12, 2000)).astype(np.float32)
    decimals = decimal_values(values)
    assert np.array(decimals).astype(np.float32).tolist() == values.tolist()
    assert max(len(repr(abs(number)).replace(".", "").split("e")[0].strip("0")) for number in decimals) <= 9
    odd = decimal_values(np.array([0.0, np.nan, np.inf, -np.inf], dtype=np.float32))
    np.testing.assert_array_equal(odd, [0.0, np.nan, np.inf, -np.inf])
