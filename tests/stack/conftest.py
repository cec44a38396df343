"""The whole application in its own processes, as ``lora-alpha up`` starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from lora_alpha.spec import ENDED_SWEEPS
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Sweep


@dataclass
class Stack:
    """A running ``lora-alpha up``."""

    process: subprocess.Popen[str]
    address: str
    home: Path

    def client(self) -> Client:
        return Client(self.address)

    def wait(self, sweep_id: str, *, timeout_s: float = 90) -> Sweep:
        return self.wait_until(sweep_id, lambda sweep: sweep.state in ENDED_SWEEPS, timeout_s=timeout_s)

    def wait_until(self, sweep_id: str, holds: Callable[[Sweep], bool], *, timeout_s: float = 60) -> Sweep:
        deadline = time.monotonic() + timeout_s
        with self.client() as client:
            while time.monotonic() < deadline:
                sweep = client.sweep(sweep_id)
                if holds(sweep):
                    return sweep
                time.sleep(0.1)
        raise AssertionError(f"still {sweep.state} after {timeout_s} s: {sweep.counts}\n{self.logs()}")

    def logs(self) -> str:
        parts = [f"== {path.name}\n{path.read_text()[-3000:]}" for path in (self.home / "logs").glob("*.log")]
        return "\n".join(parts)

    def workers_and_runners(self) -> list[int]:
        """Process ids of all workers and runners of this stack."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes()
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            mine = f"LORA_ALPHA_HOME={self.home}\0".encode() in environment
            if mine and (b"workers.runner" in command or b"\0worker\0" in command):
                found.append(int(path.name))
        return found


@contextmanager
def run_stack(home: Path, **settings: str) -> Iterator[Stack]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LORA_ALPHA_")},
        "LORA_ALPHA_HOME": str(home),
        **{f"LORA_ALPHA_{key.upper()}": value for key, value in settings.items()},
    }
    command = [sys.executable, "-m", "command_line", "up", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        line = process.stdout.readline()
        match = re.search(r"(http://\S+)", line)
        assert match, f"it did not start: {line}"
        yield Stack(process, match[1], home)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(12)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture
def embedded(tmp_path: Path) -> dict[str, str]:
    return {}


@pytest.fixture
def team(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL database and a Redis prefix of this test's own."""
    name = f"lora_alpha_test_{uuid.uuid4().hex[:8]}"
    with psycopg.connect("postgresql://root@127.0.0.1/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    prefix = name.replace("_", "-")
    yield {
        "database_url": f"postgresql+psycopg://root@127.0.0.1/{name}",
        "broker_url": "redis://127.0.0.1:6379/9",
        "key_prefix": prefix,
    }
    with psycopg.connect("postgresql://root@127.0.0.1/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    client = redis.Redis(db=9)
    for key in client.scan_iter(match=f"*{prefix}*"):
        client.delete(key)
    client.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("home")) as running:
        yield running
