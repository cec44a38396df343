from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from backend.app import create_app
from backend.services import jobs
from backend.services.adaptive import refine_due
from backend.services.jobs import ClaimedJob
from backend.settings import Settings
from backend.store.engines import Store, open_store
from backend.store.metrics import CurveWriter
from backend.store.tables import Base, RunRow
from lora_alpha.spec import Configuration
from lora_alpha.wire.client import Client

ADDRESS = "http://127.0.0.1:8050"
NOW = 1_800_000_000.0
Loss = Callable[[Configuration], float]


def planted_loss(configuration: Configuration) -> float:
    """Lowest at α = 100·√r; a little of the seed in it."""
    assert configuration.rank is not None
    assert configuration.alpha is not None
    best = 100.0 * configuration.rank**0.5
    return 1.0 + 0.05 * np.log2(configuration.alpha / best) ** 2 + 0.001 * (configuration.seed % 3)


class FakeWorker:
    """Does what a runner does to the database, without training: claims, writes curves, finishes."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.now = NOW

    def claim(self) -> ClaimedJob | None:
        self.now += 1.0
        return jobs.claim(self.store, owner="fake", queues=["default"], now=self.now, lease_s=15.0)

    def finish(self, job: ClaimedJob, loss: Loss = planted_loss, *, points: int = 5) -> None:
        """Curves of ``points`` evaluations that fall to ``loss``; a NaN loss is a diverged run."""
        self.now += 10.0
        ids = [run["id"] for run in job.spec["runs"]]
        losses = [loss(Configuration.model_validate(run["configuration"])) for run in job.spec["runs"]]
        steps = np.linspace(0, job.spec["train"]["steps"], points).astype(np.int64)
        fall = np.linspace(1.0, 0.0, points)

        def write(session: Session) -> None:
            curves = CurveWriter(session, ids, token=job.attempt)
            values = np.array([value * (1 + fall) for value in losses])
            curves.add("eval_loss", steps, values)
            curves.add("train_loss", steps[1:], values[:, 1:])
            curves.write(session, now=self.now)
            for run_id, value in zip(ids, losses, strict=True):
                finite = bool(np.isfinite(value))
                session.execute(
                    update(RunRow)
                    .where(RunRow.id == run_id)
                    .values(
                        diverged=not finite,
                        step=int(steps[-1]),
                        final_loss=value if finite else None,
                        best_loss=value if finite else None,
                        best_step=int(steps[-1]) if finite else None,
                        summary={"seconds_per_step": 0.001},
                    )
                )

        jobs.finish(self.store, job, now=self.now, write=write)

    def fail(self, job: ClaimedJob, error: str = "it broke") -> None:
        self.now += 1.0
        jobs.fail(self.store, job, now=self.now, error=error, log_tail="Traceback …")

    def refine(self) -> int:
        """What a worker does when nothing is queued: take adaptive searches further."""
        return refine_due(self.store, self.settings, now=self.now)

    def work(self, loss: Loss = planted_loss, *, points: int = 5) -> int:
        """Finish whatever is queued, adaptive searches to their end; returns the number of packs."""
        count = 0
        while True:
            if (job := self.claim()) is not None:
                self.finish(job, loss, points=points)
                count += 1
            elif not self.refine():
                return count

    def run_states(self, sweep_id: str) -> dict[str, int]:
        with self.store.read() as session:
            states = session.scalars(select(RunRow.state).where(RunRow.sweep_id == sweep_id)).all()
        return {state: states.count(state) for state in sorted(set(states))}


class AppTransport(httpx.BaseTransport):
    """Carries the client's requests into an application in the same process."""

    def __init__(self, http: Any) -> None:
        self.http = http

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.http.request(
            request.method,
            str(request.url),
            content=request.read(),
            headers=dict(request.headers),
        )
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in {"content-encoding", "content-length"}
        }
        return httpx.Response(answer.status_code, headers=headers, content=answer.content)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", token=None, workers=1)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: migrating one for each test takes most of a test's time."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    store = open_store(f"sqlite:///{path}")
    store.migrate()
    store.close()
    return path


@pytest.fixture
def store(settings: Settings, empty_database: Path) -> Iterator[Store]:
    settings.home.mkdir(parents=True)
    shutil.copy(empty_database, settings.home / "lora_alpha.db")
    store = open_store(settings.database)
    yield store
    store.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Store]:
    """A migrated, empty PostgreSQL database."""
    store = open_store(postgres_url)
    store.migrate()
    yield store
    names = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with store.write() as session:
        session.execute(text(f"TRUNCATE {names}"))
    store.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def any_store(request: pytest.FixtureRequest) -> Store:
    """Either database: for what rests on locks."""
    name = "store" if request.param == "sqlite" else "postgres_store"
    found: Store = request.getfixturevalue(name)
    return found


@pytest.fixture
def worker(store: Store, settings: Settings) -> FakeWorker:
    return FakeWorker(store, settings)


@pytest.fixture
def http(settings: Settings, store: Store) -> Iterator[Any]:
    with TestClient(create_app(settings), base_url=ADDRESS, raise_server_exceptions=False) as http:
        yield http


@pytest.fixture
def client(http: Any) -> Iterator[Client]:
    with Client(ADDRESS, transport=AppTransport(http)) as client:
        yield client
