"""The tables. The database is the truth: what is not here did not happen.

Who writes: services write sweeps, runs and jobs when a user asks for something; a runner writes metric
chunks, run summaries and its job's row, always in one transaction that begins with the fence in
``backend/services/jobs``. Times are UTC seconds since the epoch (float), so that both databases agree.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """Declarative base of every table."""

    type_annotation_map = {dict[str, Any]: Json, list[str]: Json, list[Any]: Json}  # noqa: RUF012


class SweepRow(Base):
    """A sweep. ``state`` is derived from its runs in each transaction that changes them
    (``backend/services/jobs``); ``intent`` is what the user last asked for (run, pause, stop, cancel).
    ``refinement_due``: when its runs are used up, an adaptive search has yet to decide whether it needs more.
    """

    __tablename__ = "sweeps"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    intent: Mapped[str] = mapped_column(default="run")
    refinement_due: Mapped[bool] = mapped_column(default=False)
    workload: Mapped[str] = mapped_column(index=True)
    spec: Mapped[dict[str, Any]]
    notes: Mapped[str] = mapped_column(Text, default="")
    tags: Mapped[list[str]] = mapped_column(default=list)
    priority: Mapped[int] = mapped_column(default=0)
    created: Mapped[float] = mapped_column(index=True)
    started: Mapped[float | None]
    finished: Mapped[float | None]


class RunRow(Base):
    """One training run: its configuration in columns (for filter and sort) and its summary scalars."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    position: Mapped[int]  # place in the sweep's expansion
    name: Mapped[str]
    state: Mapped[str]
    diverged: Mapped[bool] = mapped_column(default=False)
    workload: Mapped[str]
    method: Mapped[str]
    rank: Mapped[int | None]
    alpha: Mapped[float | None]
    scale: Mapped[float | None]
    lr: Mapped[float]
    seed: Mapped[int]
    steps: Mapped[int]
    configuration: Mapped[dict[str, Any]]
    step: Mapped[int] = mapped_column(default=0)
    final_loss: Mapped[float | None]
    best_loss: Mapped[float | None]
    best_step: Mapped[int | None]
    forgetting: Mapped[float | None]
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)
    adapter: Mapped[str | None]  # path relative to LORA_ALPHA_HOME
    job_id: Mapped[str | None] = mapped_column(index=True)
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("runs_sweep_position", "sweep_id", "position", unique=True),
        Index("runs_sweep_state", "sweep_id", "state"),
        Index("runs_created", "created", "id"),
    )


class JobRow(Base):
    """One unit of work for a worker: a pack of runs, a probe, an inspection or a base pre-training.

    ``attempt`` is the fencing token. ``spec`` is the JSON that the runner executes.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)  # idempotency key
    kind: Mapped[str]  # pack, probe, inspect, pretrain
    queue: Mapped[str] = mapped_column(default="default")
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), index=True)
    spec: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str]  # queued, running, paused, finished, failed, cancelled, lost
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    cancel: Mapped[bool] = mapped_column(default=False)
    pause: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[float] = mapped_column(default=0.0)  # 0 … 1
    message: Mapped[str] = mapped_column(Text, default="")  # what it is doing now
    checkpoint: Mapped[str | None]  # path relative to LORA_ALPHA_HOME
    checkpoint_step: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    log_tail: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]
    rung: Mapped[float | None]

    __table_args__ = (
        Index(
            "jobs_claim",
            "queue",
            text("priority DESC"),
            "created",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index("jobs_state", "state"),
    )


class ChunkRow(Base):
    """Up to 256 values of one metric of one run, little-endian float32.

    Value j is at step ``start_step + j * stride`` unless ``steps`` carries its own int64 array.
    ``time`` is seconds since the epoch of the last value; ``token`` the writer's attempt.
    """

    __tablename__ = "metric_chunks"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    chunk: Mapped[int] = mapped_column(primary_key=True)
    start_step: Mapped[int]
    stride: Mapped[int]
    n: Mapped[int]
    time: Mapped[float]
    token: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    steps: Mapped[bytes | None] = mapped_column(LargeBinary)


class ProbeRow(Base):
    """A Hessian probe; its work is the job of the same id."""

    __tablename__ = "probes"

    id: Mapped[str] = mapped_column(primary_key=True)
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), index=True)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    step: Mapped[int | None]
    kind: Mapped[str]
    space: Mapped[str]
    state: Mapped[str] = mapped_column(index=True)
    spec: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]


class WorkerRow(Base):
    """A worker process and its last sign of life."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    gpu_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    queue: Mapped[str]
    state: Mapped[str]
    job_id: Mapped[str | None]
    started: Mapped[float]
    heartbeat: Mapped[float]


class IdempotencyRow(Base):
    """An ``Idempotency-Key`` that was used, what it made, and a hash of the body it came with."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    resource_id: Mapped[str]
    created: Mapped[float]


class ViewRow(Base):
    """A saved view: a name for a page address."""

    __tablename__ = "views"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    address: Mapped[str] = mapped_column(Text)
    created: Mapped[float]
