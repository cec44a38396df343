"""The wire format, shared by the API and its client. Fields are promises: extend, never rename."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from lora_alpha.request import ExplicitCells, Tag
from lora_alpha.spec import (
    LearningRate,
    Positive,
    Rank,
    RunState,
    Seed,
    SweepState,
)
from lora_alpha.wire.base import Wire


class Problem(Wire):
    """RFC 9457 problem details; ``errors`` lists every invalid field."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[FieldError] = []


class FieldError(Wire):
    """One invalid field."""

    field: str
    message: str


class SweepPlan(Wire):
    """Answer of ``POST /sweeps/plan``: 200 also for an invalid request, with every problem."""

    valid: bool
    num_runs: int = 0
    num_packs: int = 0
    estimated_seconds: float | None = None
    estimate_source: Literal["measured", "catalog"] | None = None
    num_workers: int = 0
    scales: list[ScaleRow] = []
    warnings: list[str] = []
    errors: list[FieldError] = []


class ScaleRow(Wire):
    """The scale that a (method, rank, α) of the plan results in."""

    method: str
    rank: int
    alpha: float
    scale: float


class RunCounts(Wire):
    """Runs of a sweep by state; ``diverged`` counts finished runs that diverged."""

    queued: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    diverged: int = 0
    total: int = 0


class Sweep(Wire):
    """A sweep as the API shows it: ``spec`` is the resolved sweep, ``actions`` what its state allows now."""

    id: str
    name: str
    state: SweepState
    workload: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    counts: RunCounts
    progress: float
    eta_seconds: float | None = None
    spec: dict[str, Any]
    notes: str = ""
    tags: list[str] = []
    metric_label: str = ""
    warnings: list[str] = []
    actions: list[str] = []


class SweepPatch(Wire):
    """Body of ``PATCH /sweeps/{id}``."""

    name: Annotated[str, Field(max_length=200)] | None = None
    notes: Annotated[str, Field(max_length=100_000)] | None = None
    tags: Annotated[list[Tag], Field(max_length=32)] | None = None


class ExtendRequest(Wire):
    """Body of ``POST /sweeps/{id}/extend``: new axis values (crossed with the old) and explicit cells."""

    methods: list[str] = []
    ranks: list[Rank] = []
    alphas: list[Positive] = []
    lrs: list[LearningRate] = []
    seeds: list[Seed] = []
    cells: ExplicitCells = []


class Run(Wire):
    """One run with its summary scalars.

    ``alpha_schedule`` says how α moved while it trained; where it did, ``scale`` is the final one.
    """

    id: str
    sweep_id: str
    name: str
    state: RunState
    diverged: bool = False
    workload: str
    method: str
    rank: int | None = None
    alpha: float | None = None
    scale: float | None = None
    lr: float
    lr_ratio: float = 1.0
    seed: int
    steps: int
    step: int = 0
    final_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    forgetting: float | None = None
    summary: dict[str, float] = {}
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_s: float | None = None
    tags: list[str] = []
    error: str | None = None
    attempt: int = 0
    alpha_schedule: str = "constant"


T = TypeVar("T")


class Page(Wire, Generic[T]):
    """A page of a list; ``next`` is the cursor of the following page or null."""

    items: list[T]
    next: str | None = None


class Curve(Wire):
    """One line of a chart. With seeds collapsed ``value`` is the mean, ``std`` and ``n`` beside it."""

    key: str
    run_ids: list[str]
    labels: dict[str, str | float | int | None]
    step: list[float]
    value: list[float | None]
    std: list[float | None] = []
    n: list[int] = []
    diverged: bool = False
    metric: str = ""


class Curves(Wire):
    """Answer of ``GET /curves``; pass ``last_step`` back as ``from_step`` for what is new.

    ``metric`` is that of all curves, empty where several were asked for: each curve says which it shows.
    ``metrics`` are the names of all that these runs have.
    """

    metric: str
    metrics: list[str]
    curves: list[Curve]
    last_step: float = 0


class Worker(Wire):
    """A worker process."""

    id: str
    host: str
    pid: int
    device: str
    gpu_bytes: int = 0
    queue: str = "default"
    state: Literal["idle", "busy", "draining", "gone"]
    heartbeat: datetime
    started_at: datetime
    job_id: str | None = None


class Health(Wire):
    """Answer of ``GET /health``."""

    id: str = "health"
    state: Literal["ok", "degraded"]
    version: str
    database: str
    broker: str
    num_workers: int
    num_queued_jobs: int
    detail: list[str] = []


class WorkloadItem(Wire):
    """A workload as listed by ``GET /workloads``."""

    id: str
    name: str
    family: str
    title: str
    summary: str
    regime: str
    metric: str
    forgetting: str
    options_schema: dict[str, Any]
    defaults: dict[str, Any]
    state: Literal["ready"] = "ready"


class MethodItem(Wire):
    """A fine-tuning method as listed by ``GET /methods``."""

    id: str
    name: str
    summary: str
    uses_rank: bool
    state: Literal["ready"] = "ready"


Problem.model_rebuild()
SweepPlan.model_rebuild()
