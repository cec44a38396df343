"""Keeps a set of child processes running, and ends all of them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workers.processes import SUPERVISOR

CHECK_S = 0.25
# A child that dies at once is started again ever more slowly, up to this many seconds.
MAX_BACKOFF_S = 4.0
# Longer than a worker's drain and a server's last requests take, and within the 10 s of a Ctrl-C.
STOP_S = 8.0
LOG = logging.getLogger("lora_alpha.supervisor")


@dataclass(frozen=True)
class ChildSpec:
    """One process to keep alive."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    restart_at: float = 0.0


class Supervisor:
    """Starts children, restarts those that die, stops all on ``close``.

    Children are in their own process group, so that Ctrl-C reaches the supervisor alone and it can end them
    in order. They ask the kernel to die with the supervisor should it be killed; the kernel ties them to the
    *thread* that started them, so one thread starts them, watches them and sees them out.
    """

    def __init__(self, children: Sequence[ChildSpec], *, log_folder: Path) -> None:
        self.log_folder = log_folder
        log_folder.mkdir(parents=True, exist_ok=True)
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._children = [_Child(spec) for spec in children]
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start every child and the watch over them."""
        self._thread.start()
        self._ready.wait()

    def pids(self) -> dict[str, int]:
        """Process ids of the children that run, by name."""
        with self._lock:
            return {
                child.spec.name: child.process.pid
                for child in self._children
                if child.process is not None and child.process.poll() is None
            }

    def close(self) -> None:
        """Ask all children to stop, wait, kill whoever is left; at most about 8 s."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while True:
            with self._lock:
                for child in self._children:
                    self._look_after(child)
            self._ready.set()
            if self._stopping.wait(CHECK_S):
                break
        self._end_all()

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            status = child.process.poll()
            if status is None:
                if now - child.started > 2 * MAX_BACKOFF_S:
                    child.failures = 0
                return
            self._note_failure(child, now, f"ended with {status}")
        if now < child.restart_at:
            return
        try:
            child.process = self._spawn(child.spec)
        except OSError as error:  # out of processes or memory: perhaps not the next time
            self._note_failure(child, now, f"did not start ({error})")
        else:
            child.started = now

    @staticmethod
    def _note_failure(child: _Child, now: float, what: str) -> None:
        child.process = None
        child.failures += 1
        delay = min(MAX_BACKOFF_S, 0.25 * 2 ** (child.failures - 1))
        child.restart_at = now + delay
        LOG.warning("%s %s: back in %.2g s", child.spec.name, what, delay)

    def _spawn(self, spec: ChildSpec) -> subprocess.Popen[bytes]:
        with (self.log_folder / f"{spec.name}.log").open("ab") as log:
            return subprocess.Popen(
                list(spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **spec.environment, SUPERVISOR: str(os.getpid())},
                start_new_session=True,
            )

    def _end_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
