"""The whole application in its own processes, as ``lora-alpha up`` starts it; for benchmarks and tests."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep

LOG_TAIL = 3000
# (run name, metric, step) → value
History = dict[tuple[str, str, int], float]


@dataclass
class Stack:
    """A running ``lora-alpha up``."""

    process: subprocess.Popen[str]
    address: str
    home: Path

    def client(self) -> Client:
        """A client of this service."""
        return Client(self.address)

    def wait(self, sweep_id: str, *, timeout_s: float = 90) -> Sweep:
        """The sweep as it ended."""
        return self.wait_until(sweep_id, lambda sweep: sweep.state in ENDED_SWEEPS, timeout_s=timeout_s)

    def wait_until(self, sweep_id: str, holds: Callable[[Sweep], bool], *, timeout_s: float = 60) -> Sweep:
        """The sweep as soon as ``holds`` is true of it; AssertionError with all logs if it is not in time."""
        deadline = time.monotonic() + timeout_s
        with self.client() as client:
            while time.monotonic() < deadline:
                sweep = client.sweep(sweep_id)
                if holds(sweep):
                    return sweep
                time.sleep(0.1)
        raise AssertionError(
            f"still {sweep.state} after {timeout_s} s: {sweep.counts}\n{log_tails(self.home)}"
        )

    def history(self, sweep_id: str) -> History:
        """Every point of a sweep, as its CSV export has them; AssertionError on a doubled one or run."""
        with self.client() as client:
            names = {run.id: run.name for run in client.all_runs(sweep_id)}
            text = b"".join(client.export_csv("history", sweep_id)).decode()
        assert len(set(names.values())) == len(names), "several runs have the same name"
        rows = list(csv.DictReader(io.StringIO(text)))
        counted = Counter((row["run_id"], row["metric"], row["step"]) for row in rows)
        doubled = [point for point, count in counted.items() if count > 1]
        assert not doubled, f"{len(doubled)} points were stored twice, the first is {doubled[0]}"
        return {(names[row["run_id"]], row["metric"], int(row["step"])): float(row["value"]) for row in rows}

    def workers_and_runners(self) -> list[int]:
        """Process ids of all workers and runners of this stack."""
        return list(self.processes())

    def processes(self) -> dict[int, list[str]]:
        """Command lines of all workers and runners of this stack, by process id."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            mine = f"LORA_ALPHA_HOME={self.home}\0".encode() in environment
            if mine and ("workers.runner" in command or "worker" in command):
                found[int(path.name)] = command
        return found

    def runners_of(self, worker_pid: int) -> list[int]:
        """Process ids of the runners that a worker started."""
        return [
            pid
            for pid, command in self.processes().items()
            if "--parent" in command and command[command.index("--parent") + 1] == str(worker_pid)
        ]


@contextmanager
def run_stack(home: Path, *, workers: int = 2, **settings: str) -> Iterator[Stack]:
    """``lora-alpha up`` on a free port with its files in ``home``; ``settings`` are those of ``Settings``."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LORA_ALPHA_")},
        "LORA_ALPHA_HOME": str(home),
        **{f"LORA_ALPHA_{key.upper()}": value for key, value in settings.items()},
    }
    command = [sys.executable, "-m", "command_line", "up", "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield Stack(process, _address(process, home), home)
    finally:
        end_process(process)
        assert process.stdout is not None
        process.stdout.close()


def end_process(process: subprocess.Popen[Any]) -> None:
    """Ask it to end; kill it if it has not in 12 s."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(12)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def log_tails(home: Path) -> str:
    """The end of every log under ``home``."""
    logs = sorted((home / "logs").glob("*.log"))
    return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-LOG_TAIL:]}" for path in logs)


def _address(process: subprocess.Popen[str], home: Path) -> str:
    """The address that ``up`` prints, after whatever libraries have to say."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"(http://\S+)  \(", line):
            return match[1]
    raise AssertionError(f"it did not start: {''.join(said)[-LOG_TAIL:]}\n{log_tails(home)}")
