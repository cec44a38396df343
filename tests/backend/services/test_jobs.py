"""Every transition of a job: what it changes, under which attempt, and that it is all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from sqlalchemy.orm import Session

from backend.services import jobs
from backend.store.engines import Store
from backend.store.metrics import CurveWriter, read_metric
from backend.store.tables import JobRow, ProbeRow, RunRow, SweepRow
from lora_alpha.errors import LeaseLost, NotFound
from tests.queued_jobs import (
    ASKED,
    EXPIRED,
    HELD,
    LEASE_S,
    NOW,
    add_pack,
    add_probe,
    claim,
    everything,
    job_row,
    note,
    states,
)

# Claiming


def test_the_highest_priority_is_claimed_first_then_the_oldest(store: Store) -> None:
    add_pack(store, "young", now=NOW + 1)
    add_pack(store, "old")
    add_pack(store, "older-by-name", now=NOW)
    add_pack(store, "urgent", now=NOW + 2, priority=1)
    assert [claim(store).id for _ in range(4)] == ["urgent", "old", "older-by-name", "young"]


def test_only_jobs_of_the_claimants_queues_are_claimed(store: Store) -> None:
    add_pack(store, queue="gpu")
    assert jobs.claim(store, owner="one", queues=["default"], now=NOW, lease_s=LEASE_S) is None
    assert jobs.claim(store, owner="one", queues=["default", "gpu"], now=NOW, lease_s=LEASE_S) is not None


def test_a_claim_notes_owner_lease_and_attempt(store: Store) -> None:
    add_pack(store)
    claim(store)
    row = job_row(store)
    assert (row.owner, row.attempt, row.lease_until, row.started) == ("one", 1, NOW + LEASE_S, NOW)


# The fence


@pytest.mark.parametrize("transition", HELD)
def test_a_stale_attempt_changes_nothing_after_a_takeover(any_store: Store, transition: str) -> None:
    add_pack(any_store)
    stale = claim(any_store)
    jobs.reconcile(any_store, now=EXPIRED)
    assert claim(any_store, now=EXPIRED, owner="two").attempt == 2
    before = everything(any_store)
    with pytest.raises(LeaseLost, match="attempt 1 belongs to another worker"):
        HELD[transition](any_store, stale)
    assert everything(any_store) == before


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "release", "hand_back"])
@pytest.mark.parametrize("transition", HELD)
def test_who_has_ended_or_returned_a_job_cannot_change_it_any_more(
    store: Store, transition: str, end: str
) -> None:
    add_pack(store)
    job = claim(store)
    HELD[end](store, job)
    before = everything(store)
    with pytest.raises(LeaseLost):
        HELD[transition](store, job)
    assert everything(store) == before


# One transaction


class Crash(Exception):
    pass


class CrashingStore(Store):
    """Dies when everything has been written and nothing committed."""

    def __init__(self, store: Store) -> None:
        self.reader, self.writer = store.reader, store.writer

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            session.flush()
            raise Crash


@pytest.mark.parametrize("transition", HELD)
def test_a_crash_of_the_holder_leaves_everything_as_it_was(store: Store, transition: str) -> None:
    add_pack(store)
    job = claim(store)
    before = everything(store)
    with pytest.raises(Crash):
        HELD[transition](CrashingStore(store), job)
    assert everything(store) == before


@pytest.mark.parametrize("transition", ["claim", *ASKED])
def test_a_crash_of_anybody_else_leaves_everything_as_it_was(store: Store, transition: str) -> None:
    add_pack(store, "pack")
    if transition == "reconcile":
        claim(store)
    before = everything(store)
    with pytest.raises(Crash):
        ASKED.get(transition, claim)(CrashingStore(store))
    assert everything(store) == before


@pytest.mark.parametrize(
    ("transition", "expected"),
    [
        ("renew", ("running", {"running"}, "running")),
        ("progress", ("running", {"running"}, "running")),
        ("finish", ("finished", {"finished"}, "finished")),
        ("fail", ("failed", {"failed"}, "failed")),
        ("split", ("failed", {"queued"}, "queued")),
        ("cancel", ("cancelled", {"cancelled"}, "cancelled")),
        ("release", ("queued", {"queued"}, "queued")),
        ("hand_back", ("queued", {"queued"}, "queued")),
    ],
)
def test_runs_and_sweep_follow_the_job(
    any_store: Store, transition: str, expected: tuple[str, set[str], str]
) -> None:
    add_pack(any_store)
    job = claim(any_store)
    assert states(any_store) == ("running", {"running"}, "running")
    HELD[transition](any_store, job)
    assert states(any_store) == expected
    assert job_row(any_store).finished == (
        NOW if expected[0] in {"finished", "failed", "cancelled"} else None
    )


@pytest.mark.parametrize(
    ("transition", "expected"),
    [
        ("pause", ("paused", {"queued"}, "paused")),
        ("resume", ("queued", {"queued"}, "queued")),
        ("stop", ("cancelled", {"cancelled"}, "stopped")),
        ("cancel_sweep", ("cancelled", {"cancelled"}, "cancelled")),
        ("request_cancel", ("cancelled", {"cancelled"}, "cancelled")),
        ("reconcile", ("queued", {"queued"}, "queued")),
    ],
)
def test_runs_and_sweep_follow_a_waiting_job(
    any_store: Store, transition: str, expected: tuple[str, set[str], str]
) -> None:
    add_pack(any_store)
    ASKED[transition](any_store)
    assert states(any_store) == expected


@pytest.mark.parametrize(
    ("transition", "state"),
    [
        ("renew", "running"),
        ("finish", "finished"),
        ("fail", "failed"),
        ("cancel", "cancelled"),
        ("release", "queued"),
        ("hand_back", "queued"),
    ],
)
def test_a_probe_follows_its_job(store: Store, transition: str, state: str) -> None:
    add_probe(store)
    job = claim(store)
    if transition == "finish":
        jobs.finish(store, job, now=NOW)
    else:
        HELD[transition](store, job)
    with store.read() as session:
        probe = session.get_one(ProbeRow, "probe")
    assert probe.state == job_row(store, "probe").state == state
    assert (probe.finished is not None) == (state in {"finished", "failed", "cancelled"})
    assert probe.error == ("it broke" if state == "failed" else None)


def test_a_sweep_that_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no sweep 'sweep'"):
        ASKED["pause"](store)


# Progress and ends


def test_progress_renews_the_lease_and_keeps_what_was_not_given(store: Store) -> None:
    add_pack(store)
    job = claim(store)
    HELD["checkpoint"](store, job)
    jobs.progress(store, job, now=NOW + 9, lease_s=LEASE_S, share=0.5, message="half")
    jobs.progress(store, job, now=NOW + 10, lease_s=LEASE_S)
    row = job_row(store)
    assert (row.progress, row.message, row.lease_until) == (0.5, "half", NOW + 10 + LEASE_S)
    assert (row.checkpoint, row.checkpoint_step) == ("50.pt", 50)


def test_progress_of_a_cancelled_job_keeps_its_points_and_ends_it(store: Store) -> None:
    add_pack(store)
    job = claim(store)
    ASKED["cancel_sweep"](store)
    assert states(store) == ("running", {"running"}, "stopping")
    assert jobs.renew(store, job, now=NOW, lease_s=LEASE_S).cancel
    assert states(store)[0] == "running"
    assert jobs.progress(store, job, now=NOW, lease_s=LEASE_S, write=note).cancel
    assert states(store) == ("cancelled", {"cancelled"}, "cancelled")
    with store.read() as session:
        assert read_metric(session, ["pack-0"], "train_loss")["pack-0"].values.tolist() == [1.0]


def test_a_finish_keeps_figures_and_result(store: Store) -> None:
    add_pack(store)
    HELD["finish"](store, claim(store))
    row = job_row(store)
    assert (row.result, row.progress, row.finished, row.error) == ({"a": 1}, 1.0, NOW, None)
    with store.read() as session:
        run = session.get_one(RunRow, "pack-0")
        assert (run.final_loss, run.finished) == (0.5, NOW)
        assert session.get_one(SweepRow, "sweep").finished == NOW


def test_a_failure_is_the_reason_of_job_and_runs(store: Store) -> None:
    add_pack(store)
    HELD["fail"](store, claim(store))
    with store.read() as session:
        assert {session.get_one(JobRow, "pack").error, session.get_one(RunRow, "pack-1").error} == {
            "it broke"
        }
        assert session.get_one(JobRow, "pack").log_tail == "…"


@pytest.mark.parametrize(("num_runs", "halves"), [(2, [1, 1]), (3, [2, 1])])
def test_a_split_queues_the_runs_anew_in_two_packs(store: Store, num_runs: int, halves: list[int]) -> None:
    add_pack(store, num_runs=num_runs)
    job = claim(store)
    jobs.progress(store, job, now=NOW, lease_s=LEASE_S, write=lambda session: _point(session, num_runs))
    assert HELD["split"](store, job) is True
    assert [len(claim(store).spec["runs"]) for _ in range(2)] == halves
    with store.read() as session:
        assert read_metric(session, ["pack-0"], "train_loss") == {}
        assert session.get_one(JobRow, "pack").error == "too large"


def _point(session: Session, num_runs: int) -> None:
    curves = CurveWriter(session, [f"pack-{index}" for index in range(num_runs)], token=1)
    curves.add("train_loss", np.array([1]), np.ones((num_runs, 1)))
    curves.write(session, now=NOW)


@pytest.mark.parametrize("kind", ["pack", "probe"])
def test_what_cannot_be_split_is_left_alone(store: Store, kind: str) -> None:
    if kind == "pack":
        add_pack(store, num_runs=1)
    else:
        add_probe(store)
    job = claim(store)
    before = everything(store)
    assert HELD["split"](store, job) is False
    assert everything(store) == before


# Attempts


def test_a_release_does_not_count_as_an_attempt(store: Store) -> None:
    add_pack(store, max_attempts=3)
    for _ in range(5):
        assert jobs.release(store, claim(store), now=NOW) == "queued"
    deaths = [jobs.hand_back(store, claim(store), now=NOW, error="killed", log_tail="") for _ in range(3)]
    assert deaths == ["queued", "queued", "lost"]


def test_a_job_is_given_up_with_the_last_reason_when_its_attempts_are_used_up(store: Store) -> None:
    add_pack(store, max_attempts=3)
    for _ in range(3):
        HELD["hand_back"](store, claim(store))
    assert states(store) == ("lost", {"lost"}, "failed")
    with store.read() as session:
        assert session.get_one(RunRow, "pack-0").error == job_row(store).error == "killed"
    assert jobs.claim(store, owner="one", queues=["default"], now=NOW, lease_s=LEASE_S) is None


def test_a_job_whose_worker_is_silent_each_time_is_given_up_with_a_reason(store: Store) -> None:
    add_pack(store, max_attempts=3)
    for attempt in range(3):
        claim(store, now=NOW + 100 * attempt)
        jobs.reconcile(store, now=NOW + 100 * attempt + LEASE_S + 1)
    assert states(store) == ("lost", {"lost"}, "failed")
    assert job_row(store).error == "its worker died 3 times without finishing"


def test_a_lease_expires_after_its_end_and_not_before(store: Store) -> None:
    add_pack(store)
    job = claim(store)
    jobs.renew(store, job, now=NOW + 10, lease_s=LEASE_S)
    assert jobs.reconcile(store, now=NOW + 10 + LEASE_S).requeued == 0
    assert jobs.reconcile(store, now=NOW + 10.001 + LEASE_S).requeued == 1
    assert states(store) == ("queued", {"queued"}, "queued")
    assert job_row(store).owner is None


def test_an_expired_job_whose_user_cancelled_is_cancelled(store: Store) -> None:
    add_pack(store)
    claim(store)
    assert jobs.request_cancel(store, "pack", now=NOW)
    assert jobs.reconcile(store, now=EXPIRED).cancelled == 1
    assert states(store) == ("cancelled", {"cancelled"}, "cancelled")


def test_a_cancel_of_a_job_that_has_ended_is_told(store: Store) -> None:
    add_pack(store)
    HELD["finish"](store, claim(store))
    before = everything(store)
    assert jobs.request_cancel(store, "pack", now=NOW) is False
    assert everything(store) == before


# What the user asks for


def test_a_pause_reaches_a_running_pack_at_its_release_and_a_resume_before_that_undoes_it(
    store: Store,
) -> None:
    add_pack(store)
    job = claim(store)
    ASKED["pause"](store)
    assert jobs.renew(store, job, now=NOW, lease_s=LEASE_S).pause
    assert jobs.release(store, job, now=NOW) == "paused"
    assert states(store) == ("paused", {"queued"}, "paused")
    ASKED["resume"](store)
    job = claim(store)
    ASKED["pause"](store)
    ASKED["resume"](store)
    assert jobs.release(store, job, now=NOW) == "queued"


def test_a_stop_lets_a_running_pack_end(store: Store) -> None:
    add_pack(store)
    job = claim(store)
    add_pack(store, "waiting")
    ASKED["stop"](store)
    assert not jobs.renew(store, job, now=NOW, lease_s=LEASE_S).cancel
    HELD["finish"](store, job)
    assert states(store) == ("finished", {"finished", "cancelled"}, "stopped")
