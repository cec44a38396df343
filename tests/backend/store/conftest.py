from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.store.engines import Store, open_store
from backend.store.tables import RunRow, SweepRow

NOW = 1_800_000_000.0
BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A migrated, empty database."""
    if url.startswith("postgresql"):
        yield request.getfixturevalue("postgres_store")
        return
    store = open_store(url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def add_sweep(store: Store) -> Callable[..., list[str]]:
    """Inserts a sweep whose runs all belong to one job; returns the runs' ids."""

    def add(*, num_runs: int, job_id: str, sweep_id: str = "sweep") -> list[str]:
        ids = [f"{sweep_id}-{index}" for index in range(num_runs)]
        with store.write() as session:
            session.add(
                SweepRow(id=sweep_id, name=sweep_id, state="queued", workload="mlp", spec={}, created=NOW)
            )
            session.flush()
            session.add_all(
                RunRow(
                    id=run_id,
                    sweep_id=sweep_id,
                    position=index,
                    name=run_id,
                    state="queued",
                    workload="mlp",
                    method="lora",
                    rank=4,
                    alpha=16.0,
                    scale=4.0,
                    lr=1e-3,
                    seed=index,
                    steps=100,
                    configuration={},
                    job_id=job_id,
                    created=NOW,
                )
                for index, run_id in enumerate(ids)
            )
        return ids

    return add
