"""Workers, health, workloads and methods as the API shows them."""

from __future__ import annotations

import time
from importlib.metadata import version

from celery import Celery
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from backend.services.presenters import timestamp
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import JobRow, WorkerRow
from lora_alpha.catalog import WORKLOADS
from lora_alpha.methods import METHODS
from lora_alpha.wire.sweeps import Health, MethodItem, Worker, WorkloadItem


def workers(store: Store, settings: Settings, *, now: float) -> list[Worker]:
    """Workers seen in the last hour, the living first; without a sign of life for two leases: ``gone``."""
    with store.read() as session:
        rows = session.scalars(
            select(WorkerRow).where(WorkerRow.heartbeat > now - 3600).order_by(WorkerRow.started)
        ).all()
    shown = []
    for row in rows:
        silent = now - row.heartbeat > 2 * settings.lease_s
        heartbeat, started = timestamp(row.heartbeat), timestamp(row.started)
        assert heartbeat is not None
        assert started is not None
        shown.append(
            Worker(
                id=row.id,
                host=row.host,
                pid=row.pid,
                device=row.device,
                gpu_bytes=row.gpu_bytes,
                queue=row.queue,
                state="gone" if silent else row.state,  # type: ignore[arg-type]
                heartbeat=heartbeat,
                started_at=started,
                job_id=row.job_id,
            )
        )
    return sorted(shown, key=lambda worker: worker.state == "gone")


def health(store: Store, settings: Settings, celery: Celery) -> Health:
    """Whether database and broker answer, and who is there to work."""
    detail = []
    num_workers = num_queued = 0
    database = "ok"
    try:
        with store.read() as session:
            session.execute(text("SELECT 1"))
            num_queued = session.scalar(select(func.count()).where(JobRow.state == "queued")) or 0
        num_workers = sum(item.state != "gone" for item in workers(store, settings, now=time.time()))
    except SQLAlchemyError as error:
        database = "unreachable"
        detail.append(f"database: {error.__class__.__name__}")
    broker = "ok"
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
    except Exception as error:
        # Each transport has errors of its own; whichever it is, the queue still works, only more slowly.
        broker = "unreachable"
        detail.append(f"broker: {error.__class__.__name__}; queued jobs wait until it answers")
    if num_workers == 0:
        detail.append("no worker is running: jobs stay queued")
    return Health(
        state="ok" if database == broker == "ok" else "degraded",
        version=version("lora-alpha"),
        database=database,
        broker=broker,
        num_workers=num_workers,
        num_queued_jobs=num_queued,
        detail=detail,
    )


def workloads() -> list[WorkloadItem]:
    """Every workload with the schema of its options."""
    return [
        WorkloadItem(
            id=info.name,
            name=info.name,
            family=info.family,
            title=info.title,
            summary=info.summary,
            regime=info.regime,
            metric=info.metric,
            forgetting=info.forgetting,
            options_schema=info.options.model_json_schema(),
            defaults=info.defaults.model_dump(mode="json"),
        )
        for info in WORKLOADS.values()
    ]


def methods() -> list[MethodItem]:
    """Every fine-tuning method."""
    return [
        MethodItem(id=info.name, name=info.name, summary=info.summary, uses_rank=info.uses_rank)
        for info in METHODS.values()
    ]
