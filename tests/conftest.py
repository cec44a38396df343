"""Resources that tests may need, and what happens without them.

A test whose resource is absent is skipped with the reason; ``LORA_ALPHA_REQUIRE=services,browser`` turns
that skip into a failure.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
import torch

REQUIRED = set(filter(None, os.environ.get("LORA_ALPHA_REQUIRE", "").split(",")))


def _missing_services() -> str | None:
    for name, port in (("PostgreSQL", 5432), ("Redis", 6379)):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return f"{name} does not answer on 127.0.0.1:{port}"
    return None


def _missing_browser() -> str | None:
    return None if shutil.which("chromium") else "chromium is not installed"


def _missing_gpu() -> str | None:
    return None if torch.cuda.is_available() else "no CUDA device"


MISSING = {"services": _missing_services, "browser": _missing_browser, "gpu": _missing_gpu}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {name: find() for name, find in MISSING.items()}
    for item in items:
        for name, reason in reasons.items():
            if reason is not None and item.get_closest_marker(name) and name not in REQUIRED:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in REQUIRED & set(MISSING):
        if item.get_closest_marker(name) and (reason := MISSING[name]()):
            pytest.fail(f"LORA_ALPHA_REQUIRE names {name}: {reason}", pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread() -> None:
    torch.set_num_threads(1)  # what workers use; small kernels only lose by more


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed in for one test: ``tests/installed_packages.py`` writes them."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


POSTGRES = "postgresql://root@127.0.0.1:5432"
REDIS_DATABASE = 8


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty PostgreSQL database of this test run."""
    name = f"lora_alpha_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(f"{POSTGRES}/test", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{POSTGRES.replace('postgresql', 'postgresql+psycopg')}/{name}"
    with psycopg.connect(f"{POSTGRES}/test", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis database that is empty before and after."""
    with redis.Redis(db=REDIS_DATABASE) as client:
        client.flushdb()
        yield f"redis://127.0.0.1:6379/{REDIS_DATABASE}"
        client.flushdb()
