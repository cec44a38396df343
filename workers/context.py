"""What a job handler may do: report, write under the fence, learn that it should stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from backend.services.states import refresh_state
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import (
    ClaimedJob,
    cancel_running_job,
    fence,
    finish_job,
    release_job,
)

Write = Callable[[Session], None]


class JobStopped(Exception):
    """The job has been ended in the database for a reason other than its own; ``outcome`` says which."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class JobContext:
    """One claimed job in a runner. All writes are fenced; all of them renew the lease.

    ``drain`` is set from outside when the worker was asked to stop.
    """

    def __init__(
        self, store: Store, settings: Settings, job: ClaimedJob, *, device: str, drain: threading.Event
    ) -> None:
        self.store = store
        self.settings = settings
        self.job = job
        self.device = device
        self._drain = drain
        self._pause = False
        self._last_commit = 0.0

    def wants_checkpoint(self) -> bool:
        """True once a pause or drain waits for the next checkpoint."""
        return self._pause or self._drain.is_set()

    def due(self) -> bool:
        """Whether the time between two writes has passed."""
        return time.monotonic() - self._last_commit >= self.settings.point_interval_s

    def commit(
        self,
        write: Write | None = None,
        *,
        progress: float | None = None,
        message: str | None = None,
        checkpoint: tuple[Path, int] | None = None,
    ) -> None:
        """One fenced transaction.

        Raises:
            JobStopped: If the user cancelled; the job is then already marked so.
            LeaseLost: If the job belongs to another worker.
        """
        pointer = None
        if checkpoint is not None:
            pointer = (str(checkpoint[0].relative_to(self.settings.home)), checkpoint[1])
        now = time.time()
        with self.store.write() as session:
            signals = fence(
                session,
                self.job,
                now=now,
                lease_s=self.settings.lease_s,
                progress=progress,
                message=message,
                checkpoint=pointer,
            )
            if write is not None:
                write(session)
            if signals.cancel:
                cancel_running_job(session, self.job, now=now)
                self._refresh(session, now)
        self._last_commit = time.monotonic()
        self._pause = signals.pause
        if signals.cancel:
            raise JobStopped("cancelled")

    def stop_at_checkpoint(self) -> None:
        """After a committed checkpoint: give the job back if a pause or drain waits.

        Raises:
            JobStopped: If so.
        """
        if not self.wants_checkpoint():
            return
        now = time.time()
        with self.store.write() as session:
            release_job(session, self.job)
            self._refresh(session, now)
        raise JobStopped("paused" if self._pause else "released")

    def finish(self, write: Write | None = None, *, result: dict[str, Any] | None = None) -> None:
        """The last fenced transaction of a job that ran to its end."""
        now = time.time()
        with self.store.write() as session:
            fence(session, self.job, now=now, lease_s=self.settings.lease_s)
            if write is not None:
                write(session)
            finish_job(session, self.job, now=now, result=result)
            self._refresh(session, now)

    def _refresh(self, session: Session, now: float) -> None:
        if self.job.sweep_id is not None:
            refresh_state(session, self.job.sweep_id, now=now)
