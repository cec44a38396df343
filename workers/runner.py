"""The runner: a warm subprocess that executes one job after another for its worker.

It speaks JSON lines: jobs and ``drain`` come on standard input, ``alive``, ``ready`` and outcomes go out on
the protocol pipe. Its standard output and error are the log. It dies with its worker.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
import traceback
from typing import Any, TextIO

from backend.services import jobs
from backend.services.jobs import ClaimedJob
from backend.settings import get_settings
from backend.store.engines import open_store
from lora_alpha.errors import LeaseLost, LoraAlphaError
from workers.context import JobContext, JobStopped
from workers.handlers import find_handler
from workers.processes import die_with_parent

PING_S = 0.5
LOG = logging.getLogger("lora_alpha.runner")


def main() -> None:
    """Serve jobs until standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--protocol", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(options.parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with os.fdopen(options.protocol, "w", buffering=1) as pipe:
        Runner(pipe, device=options.device).serve(sys.stdin)


class Runner:
    """Reads jobs, runs them one at a time, tells how they ended."""

    def __init__(self, pipe: TextIO, *, device: str) -> None:
        self.pipe = pipe
        self.device = device
        self.settings = get_settings()
        self.store = open_store(self.settings.database)
        self.drain = threading.Event()
        self.jobs: list[ClaimedJob] = []
        self.arrived = threading.Semaphore(0)
        self.closed = False
        self._write_lock = threading.Lock()

    def serve(self, lines: TextIO) -> None:
        """Work until the input ends."""
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()
        threading.Thread(target=self._ping, daemon=True).start()
        import torch

        torch.set_num_threads(1)  # one process a core; more threads would fight over it
        if self.device.startswith("cuda"):
            torch.cuda.init()  # type: ignore[no-untyped-call]
        self._say(event="ready")
        while True:
            self.arrived.acquire()
            if self.closed:
                return
            job = self.jobs.pop(0)
            outcome, error = self._run(job)
            self._say(event="done", job=job.id, attempt=job.attempt, outcome=outcome, error=error)

    def _run(self, job: ClaimedJob) -> tuple[str, str | None]:
        context = JobContext(self.store, self.settings, job, device=self.device, drain=self.drain)
        LOG.info("job %s (%s), attempt %d", job.id, job.kind, job.attempt)
        try:
            find_handler(job.kind)(context)
        except JobStopped as stopped:
            return stopped.outcome, None
        except LeaseLost as lost:
            LOG.warning("%s", lost)
            return "lease_lost", None
        except Exception as error:
            traceback.print_exc()
            return self._fail(job, error)
        LOG.info("job %s finished", job.id)
        return "finished", None

    def _fail(self, job: ClaimedJob, error: Exception) -> tuple[str, str | None]:
        reason = str(error) if isinstance(error, LoraAlphaError) else f"{type(error).__name__}: {error}"
        too_large = _is_out_of_memory(error)
        if too_large:
            reason = f"out of memory: take a smaller batch or rank, or a larger device ({reason})"
        now, log_tail = time.time(), traceback.format_exc()[-8000:]
        halved = f"its runs were queued again in two packs of half the size; {reason}"
        try:
            if too_large and jobs.split(self.store, job, now=now, error=halved, log_tail=log_tail):
                return "failed", halved
            jobs.fail(self.store, job, now=now, error=reason, log_tail=log_tail)
        except LeaseLost:
            return "lease_lost", None
        return "failed", reason

    def _listen(self, lines: TextIO) -> None:
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if message.get("drain"):
                self.drain.set()
            else:
                self.jobs.append(ClaimedJob(**message["job"]))
                self.arrived.release()
        self.closed = True
        self.drain.set()
        self.arrived.release()

    def _ping(self) -> None:
        while not self.closed:
            self._say(event="alive")
            time.sleep(PING_S)

    def _say(self, **message: Any) -> None:
        with self._write_lock:
            self.pipe.write(json.dumps(message) + "\n")
            self.pipe.flush()


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


if __name__ == "__main__":
    main()
