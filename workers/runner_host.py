"""The worker's side of its runner: start it, feed it, watch it, replace it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from backend.services.jobs import ClaimedJob

LOG_TAIL_BYTES = 8_000
# Importing torch on a busy machine takes long; a runner that has not said a word after this is stuck.
START_TIMEOUT_S = 120.0


class RunnerHost:
    """One warm runner process and, when it is gone, the next one.

    Processes are started from a thread that lives as long as the worker: the kernel ties a runner's life to
    the *thread* that started it.
    """

    def __init__(
        self,
        *,
        device: str,
        log_path: Path,
        program: Sequence[str] = (sys.executable, "-m", "workers.runner"),
    ) -> None:
        self.device = device
        self.program = program
        self.log_path = log_path
        self._starter = ThreadPoolExecutor(max_workers=1)
        self._process: subprocess.Popen[str] | None = None
        self._events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._log_offset = 0
        self._submitted: tuple[str, int] | None = None
        self._last_sign = time.monotonic()
        self._started = False

    def warm_up(self) -> None:
        """Have a runner starting, without waiting for it."""
        self._starter.submit(self._ensure)

    def submit(self, job: ClaimedJob) -> None:
        """Hand ``job`` to the runner, starting one if need be."""
        self._starter.submit(self._ensure).result()
        self._log_offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._last_sign = time.monotonic()
        self._submitted = (job.id, job.attempt)
        self._send({"job": asdict(job)})

    def drain(self) -> None:
        """Ask the runner to stop at the next checkpoint."""
        self._send({"drain": True})

    def poll(self, timeout_s: float) -> dict[str, Any] | None:
        """The outcome of the job that was submitted last, or None if it did not come in time.

        Signs of life are noted on the way. What comes late, of an earlier job or an earlier attempt at this
        one, says nothing of the present one.
        """
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except Empty:
                return None
            self._last_sign = time.monotonic()
            self._started = True
            if event["event"] == "done" and (event["job"], event["attempt"]) == self._submitted:
                return event
        return None

    @property
    def pid(self) -> int | None:
        """Process id of the runner."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether the runner process exists."""
        return self._process is not None and self._process.poll() is None

    def is_silent(self, limit_s: float) -> bool:
        """Whether the runner has given no sign of life for ``limit_s`` since it first spoke."""
        limit_s = limit_s if self._started else START_TIMEOUT_S
        return time.monotonic() - self._last_sign > limit_s

    def exit_status(self) -> int | None:
        """How the runner ended: negative is the signal that killed it."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """End the runner now; the next job gets a new one."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._forget_process()

    def log_tail(self) -> str:
        """The last lines that the current job wrote."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_offset, end - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")

    def close(self) -> None:
        """End the runner and the starting thread."""
        self.kill()
        self._starter.shutdown(wait=False)

    def _ensure(self) -> None:
        if self.alive():
            return
        self._forget_process()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        read_end, write_end = os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [*self.program, "--device", self.device]
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--protocol", str(write_end), "--parent", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                env=environment,
                text=True,
            )
        os.close(write_end)
        self._process = process
        self._events = SimpleQueue()
        self._last_sign = time.monotonic()
        self._started = False
        threading.Thread(target=self._read, args=(read_end, self._events), daemon=True).start()

    def _forget_process(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # what it had not read yet
                self._process.stdin.close()
        self._process = None

    @staticmethod
    def _read(read_end: int, events: SimpleQueue[dict[str, Any]]) -> None:
        with os.fdopen(read_end) as pipe:
            for line in pipe:
                events.put(json.loads(line))

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with suppress(BrokenPipeError, OSError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
