"""The whole application in its own processes, as ``lora-alpha up`` starts it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from benchmarks._application import Stack, run_stack

__all__ = ["Stack", "run_stack"]


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
