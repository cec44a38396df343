"""Transitions at the same time: on PostgreSQL writers run side by side, on SQLite one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from backend.services import jobs
from backend.services.jobs import ClaimedJob
from backend.store.engines import Store
from backend.store.jobs import enqueue
from backend.store.tables import SweepRow
from tests.queued_jobs import ASKED, LEASE_S, NOW, add_pack, claim, job_row, states


def test_two_claimants_get_one_job(any_store: Store) -> None:
    add_pack(any_store)
    start = threading.Barrier(4)

    def take(owner: str) -> ClaimedJob | None:
        start.wait()
        return jobs.claim(any_store, owner=owner, queues=["default"], now=NOW, lease_s=LEASE_S)

    with ThreadPoolExecutor(4) as pool:
        got = [job for job in pool.map(take, "abcd") if job is not None]
    assert [(job.id, job.attempt) for job in got] == [("pack", 1)]


def test_claimants_at_once_get_different_jobs(any_store: Store) -> None:
    for name in "abcd":
        add_pack(any_store, name)
    start = threading.Barrier(4)

    def take(owner: str) -> str:
        start.wait()
        return claim(any_store, owner=owner).id

    with ThreadPoolExecutor(4) as pool:
        first = sorted(pool.map(take, "1234"))
    assert first == ["a", "b", "c", "d"]


@pytest.mark.services
def test_workers_that_add_probes_and_end_the_same_sweep_do_not_wait_for_each_other(
    postgres_store: Store,
) -> None:
    store = postgres_store
    add_pack(store, "a")
    add_pack(store, "b")
    claimed = [claim(store), claim(store)]
    both = threading.Barrier(2)

    def finish(job: ClaimedJob) -> None:
        def write(session: Session) -> None:
            enqueue(session, kind="probe", spec={}, now=NOW, max_attempts=3, sweep_id="sweep")
            both.wait(10)

        jobs.finish(store, job, now=NOW, write=write)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(finish, claimed))
    with store.read() as session:
        assert session.get_one(SweepRow, "sweep").state == "finished"


@pytest.mark.services
def test_a_pause_in_the_middle_of_a_finish_waits_for_it(postgres_store: Store) -> None:
    add_pack(postgres_store)
    add_pack(postgres_store, "waiting")
    job = claim(postgres_store)
    with ThreadPoolExecutor(1) as pool:
        pausing = []

        def write(_: Session) -> None:
            pausing.append(pool.submit(ASKED["pause"], postgres_store))
            wait_for_a_blocked_session(postgres_store)

        jobs.finish(postgres_store, job, now=NOW, write=write)
        pausing[0].result(10)
    assert states(postgres_store) == ("finished", {"finished", "queued"}, "paused")


class PatientStore(Store):
    """Commits when somebody else waits for its locks."""

    def __init__(self, store: Store) -> None:
        self.reader, self.writer = store.reader, store.writer

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            session.flush()
            wait_for_a_blocked_session(self)


@pytest.mark.services
@pytest.mark.parametrize("before", ["release", "claim"])
def test_a_pause_misses_no_pack_that_is_claimed_or_released_meanwhile(
    postgres_store: Store, before: str
) -> None:
    add_pack(postgres_store)
    patient = PatientStore(postgres_store)
    with ThreadPoolExecutor(1) as pool:
        if before == "release":
            moving = pool.submit(jobs.release, patient, claim(postgres_store), now=NOW)
        else:
            moving = pool.submit(claim, patient)
        wait_until(lambda: active_writers(postgres_store) > 0)
        ASKED["pause"](postgres_store)
        moving.result(10)
    row = job_row(postgres_store)
    assert (row.state, row.pause) == (("paused", False) if before == "release" else ("running", True))


def wait_for_a_blocked_session(store: Store) -> None:
    wait_until(lambda: sessions(store, "wait_event_type = 'Lock'") > 0)


def active_writers(store: Store) -> int:
    return sessions(store, "backend_xid IS NOT NULL")


def sessions(store: Store, condition: str) -> int:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    with store.read() as session:
        return int(session.scalar(text(query)) or 0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 10 s"
        time.sleep(0.01)
