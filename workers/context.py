"""What a job handler may do: report, write under the fence, learn that it should stop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from backend.services import jobs
from backend.services.jobs import ClaimedJob, Write
from backend.settings import Settings
from backend.store.engines import Store


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
            pointer = (self.settings.files.pointer(checkpoint[0]), checkpoint[1])
        signals = jobs.progress(
            self.store,
            self.job,
            now=time.time(),
            lease_s=self.settings.lease_s,
            write=write,
            share=progress,
            message=message,
            checkpoint=pointer,
        )
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
        state = jobs.release(self.store, self.job, now=time.time())
        raise JobStopped("paused" if state == "paused" else "released")

    def finish(self, write: Write | None = None, *, result: dict[str, Any] | None = None) -> None:
        """The last fenced transaction of a job that ran to its end."""
        jobs.finish(self.store, self.job, now=time.time(), write=write, result=result)
