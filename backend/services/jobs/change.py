"""The one way to change runs and jobs: a transaction at whose end sweeps get the state that follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.services.states import derive_state
from backend.store.engines import Store
from backend.store.jobs import UNFINISHED
from backend.store.sweeps import lock_sweep, run_counts
from backend.store.tables import JobRow, RunRow, SweepRow
from lora_alpha.errors import NotFound
from lora_alpha.spec import ENDED_SWEEPS


class Change:
    """An open write transaction at the time ``now``; sweeps that it touches get their state derived anew."""

    def __init__(self, session: Session, *, now: float) -> None:
        self.session = session
        self.now = now
        self._touched: set[str] = set()

    def sweep(self, sweep_id: str) -> SweepRow:
        """The row of a sweep that this transaction changes, locked together with its unfinished jobs.

        So none of them is claimed, released or added to between two statements of this transaction.

        Raises:
            NotFound: If there is none.
        """
        jobs = select(JobRow.id).where(JobRow.sweep_id == sweep_id, JobRow.state.in_(UNFINISHED))
        self.session.execute(jobs.order_by(JobRow.id).with_for_update()).all()
        sweep = lock_sweep(self.session, sweep_id)
        if sweep is None:
            raise NotFound(f"there is no sweep {sweep_id!r}")
        self.touch(sweep_id)
        return sweep

    def touch(self, sweep_id: str | None) -> None:
        """Note that runs of this sweep change; None, the sweep of a job that belongs to none, is nothing."""
        if sweep_id is not None:
            self._touched.add(sweep_id)

    def derive_states(self) -> None:
        """Derive the state of every touched sweep; ``open_change`` does it, nobody else need."""
        self.session.flush()
        for sweep_id in sorted(self._touched):  # one order, or two of us would wait for each other
            _derive(self.session, sweep_id, self.now)


@contextmanager
def open_change(store: Store, *, now: float) -> Iterator[Change]:
    """A write transaction that ends with the states of the sweeps it touched; an error undoes all of it."""
    with store.write() as session:
        change = Change(session, now=now)
        yield change
        change.derive_states()


def _derive(session: Session, sweep_id: str, now: float) -> None:
    # Locked before the runs are counted: of two workers that end a sweep's last runs, the later sees both.
    sweep = lock_sweep(session, sweep_id)
    if sweep is None:
        return
    counts = run_counts(session, [sweep_id])[sweep_id]
    sweep.state = derive_state(counts, intent=sweep.intent, refinement_due=sweep.refinement_due)
    if sweep.started is None and (counts.running or counts.finished):
        sweep.started = session.scalar(select(func.min(RunRow.started)).where(RunRow.sweep_id == sweep_id))
    sweep.finished = (sweep.finished or now) if sweep.state in ENDED_SWEEPS else None
    session.flush()
