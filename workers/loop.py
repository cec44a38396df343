"""The claim loop: what a worker does each time the bell rings."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from backend.services import jobs
from backend.services.adaptive import refine_due
from backend.services.jobs import ClaimedJob
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.jobs import new_id
from backend.store.tables import WorkerRow
from lora_alpha.errors import LeaseLost
from lora_alpha.planning.fleet import gpu_memory_bytes
from workers.runner_host import RunnerHost

POLL_S = 0.1
# Between a runner's last write and its word of it; a busy machine may take its time.
SETTLE_S = 2.0
LOG = logging.getLogger("lora_alpha.worker")


class WorkerLoop:
    """Claims jobs and runs them in the warm runner, one at a time, until none is queued.

    A message says only that there may be work, so every ring drains the queue; a lost message costs one
    ringing interval of the reconciler.
    """

    def __init__(self, store: Store, settings: Settings, *, device: str, queues: tuple[str, ...]) -> None:
        self.store = store
        self.settings = settings
        self.device = device
        self.queues = queues
        self.id = new_id()
        self.draining = threading.Event()
        self.closed = threading.Event()
        self.job_id: str | None = None
        self.runner = RunnerHost(device=device, log_path=settings.files.runner_log(self.id))
        self._busy = threading.Lock()

    def start(self) -> None:
        """Register, begin heartbeats, warm the runner."""
        memory, now = gpu_memory_bytes(self.device), time.time()  # asks a program: not while the store waits
        with self.store.write() as session:
            session.add(
                WorkerRow(
                    id=self.id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    device=self.device,
                    gpu_bytes=memory,
                    queue=",".join(self.queues),
                    state="idle",
                    started=now,
                    heartbeat=now,
                )
            )
        self.runner.warm_up()
        threading.Thread(target=self._beat, daemon=True).start()

    def work(self) -> int:
        """Run queued jobs until none is left; returns how many were run."""
        count = 0
        with self._busy:
            while not self.draining.is_set():
                job = self._claim()
                if job is None:
                    # Whoever ended a search's last run looks at once; the reconciler comes once a second.
                    if refine_due(self.store, self.settings, now=time.time()):
                        continue
                    break
                self.job_id = job.id
                self._beat_once()
                self._run(job)
                self.job_id = None
                count += 1
        self._beat_once()
        return count

    def drain(self) -> None:
        """Stop claiming; the running job goes back to the queue at its next checkpoint."""
        self.draining.set()
        self.runner.drain()

    def close(self) -> None:
        """Leave: the runner ends, the registration goes."""
        self.closed.set()
        self.runner.close()
        with self.store.write() as session:
            row = session.get(WorkerRow, self.id)
            if row is not None:
                row.state, row.job_id, row.heartbeat = "gone", None, time.time()

    def _claim(self) -> ClaimedJob | None:
        now, lease_s = time.time(), self.settings.lease_s
        return jobs.claim(self.store, owner=self.id, queues=self.queues, now=now, lease_s=lease_s)

    def _run(self, job: ClaimedJob) -> None:
        self.runner.submit(job)
        try:
            self._watch(job)
        except LeaseLost as lost:
            # Not ours any more: as a rule because the runner ended it just now and is about to say so.
            done = self.runner.poll(SETTLE_S)
            if done is None:
                LOG.warning("%s", lost)
                self.runner.kill()
            else:
                self._settle(done)
        self.runner.warm_up()

    def _watch(self, job: ClaimedJob) -> None:
        renewed = time.monotonic()
        cancel_since: float | None = None
        drain_since: float | None = None
        while True:
            done = self.runner.poll(POLL_S)
            if done is not None:
                self._settle(done)
                return
            if not self.runner.alive():
                self._give_back(job, f"the runner died ({_describe_exit(self.runner.exit_status())})")
                return
            now = time.monotonic()
            if self.runner.is_silent(self.settings.lease_s):
                self.runner.kill()
                self._give_back(job, f"the runner gave no sign of life for {self.settings.lease_s:.0f} s")
                return
            if now - renewed > min(1.0, self.settings.lease_s / 3):
                renewed = now
                signals = jobs.renew(self.store, job, now=time.time(), lease_s=self.settings.lease_s)
                cancel_since = (cancel_since or now) if signals.cancel else None
            if cancel_since is not None and now - cancel_since > self.settings.cancel_grace_s:
                self.runner.kill()
                jobs.cancel(self.store, job, now=time.time())
                return
            if self.draining.is_set():
                drain_since = drain_since or now
                if now - drain_since > self.settings.drain_s:
                    self.runner.kill()
                    jobs.release(self.store, job, now=time.time())
                    return

    def _settle(self, done: Mapping[str, Any]) -> None:
        if done["outcome"] in {"failed", "cancelled", "lease_lost"}:
            self.runner.kill()  # CUDA state and memory of a job that did not end well

    def _give_back(self, job: ClaimedJob, error: str) -> None:
        LOG.warning("job %s: %s", job.id, error)
        log_tail = self.runner.log_tail()
        jobs.hand_back(self.store, job, now=time.time(), error=error, log_tail=log_tail)

    def _beat(self) -> None:
        while not self.closed.wait(self.settings.lease_s / 3):
            self._beat_once()

    def _beat_once(self) -> None:
        state = "draining" if self.draining.is_set() else "busy" if self.job_id else "idle"
        with self.store.write() as session:
            row = session.get(WorkerRow, self.id)
            if row is not None:
                row.state, row.job_id, row.heartbeat = state, self.job_id, time.time()


def _describe_exit(status: int | None) -> str:
    if status is None:
        return "status unknown"
    if status == -9:
        return "killed: out of memory, or by hand"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
