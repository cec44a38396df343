"""Wire format of what surrounds sweeps: probes, inspections, ingested runs, saved views."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from lora_alpha.metrics import Goal
from lora_alpha.request import Tag
from lora_alpha.spec import LearningRate, MetricName, Positive, ProbeKind, ProbeSpace, Rank, RunState, Seed
from lora_alpha.wire.base import Wire

Step = Annotated[int, Field(ge=0, lt=2**53)]


class Probe(Wire):
    """A Hessian probe as the API shows it; ``result`` is filled when it has finished."""

    id: str
    state: RunState
    sweep_id: str | None = None
    run_id: str | None = None
    step: int | None = None
    kind: ProbeKind
    space: ProbeSpace
    spec: dict[str, Any]
    progress: float = 0.0
    message: str = ""
    result: dict[str, Any] | None = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class InspectionRequest(Wire):
    """Body of ``POST /inspections``: check a workload and its options before any run is queued."""

    workload: Annotated[str, Field(min_length=1, max_length=200)]
    workload_options: dict[str, Any] = {}


class Inspection(Wire):
    """An inspection; ``result`` says what was found, ``error`` what is wrong and what to do."""

    id: str
    state: RunState
    workload: str
    workload_options: dict[str, Any]
    progress: float = 0.0
    message: str = ""
    result: dict[str, Any] | None = None
    error: str | None = None
    created_at: datetime
    finished_at: datetime | None = None


class IngestRun(Wire):
    """Body of ``POST /ingest/runs``: a run that is trained elsewhere.

    ``sweep`` is the id of a sweep made by an earlier ingest; without it the run joins the ingested sweep
    called ``sweep_name``, which is made when it does not exist. ``key`` makes the call repeatable: the same
    key in the same sweep gives the same run back. ``scale`` overrides what method, rank and α would give;
    ``layers`` are scales by layer where they differ; ``config`` is kept as it is. ``metric`` is what α is to
    be chosen by in the sweep, ``goal`` which way is better: the last run that says so counts for all.
    """

    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    sweep: str | None = None
    sweep_name: Annotated[str, Field(min_length=1, max_length=200)] = "ingested"
    workload: Annotated[str, Field(min_length=1, max_length=200)] = "external"
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    method: Annotated[str, Field(min_length=1, max_length=64)] = "lora"
    rank: Rank | None = None
    alpha: Positive | None = None
    scale: Positive | None = None
    lr: LearningRate
    lr_ratio: Positive = 1.0
    seed: Seed = 0
    steps: Annotated[int, Field(ge=1, le=1_000_000_000)]
    layers: dict[str, Positive] = {}
    config: dict[str, Any] = {}
    tags: Annotated[list[Tag], Field(max_length=32)] = []
    metric: MetricName | None = None
    goal: Goal | None = None


class IngestSeries(Wire):
    """Points of one metric; a step that is already stored is left as it is. NaN is sent as null."""

    metric: MetricName
    steps: Annotated[list[Step], Field(min_length=1, max_length=100_000)]
    values: Annotated[list[float | None], Field(min_length=1, max_length=100_000)]


class IngestPoints(Wire):
    """Body of ``POST /ingest/runs/{id}/points``: new points, and how the run ended when it has.

    Final and best loss are read from ``eval_loss`` (``train_loss`` if there is none) unless given. A run
    without any loss counts with another metric that it has recorded, see ``lora_alpha.metrics``.
    """

    series: Annotated[list[IngestSeries], Field(max_length=200)] = []
    state: Literal["running", "finished", "failed"] | None = None
    diverged: bool | None = None
    final_loss: float | None = None
    best_loss: float | None = None
    best_step: Step | None = None
    forgetting: float | None = None
    summary: Annotated[dict[str, float], Field(max_length=200)] = {}
    error: Annotated[str, Field(max_length=10_000)] | None = None


class IngestReceipt(Wire):
    """How many of the points were new, and how many were stored before."""

    id: str
    state: RunState
    num_added: int
    num_known: int


class ViewRequest(Wire):
    """Body of ``POST /views``: a name for a page address of the dashboard."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    address: Annotated[str, Field(min_length=1, max_length=4000, pattern=r"^/([^/\\].*)?$")]


class SavedView(Wire):
    """A saved view."""

    id: str
    state: Literal["saved"] = "saved"
    name: str
    address: str
    created_at: datetime


class PresetItem(Wire):
    """A ready-made sweep: what it asks, what it showed when it was measured, and its request.

    ``needs`` are the workload options that only the user knows (a model, a file): with them filled in,
    ``request`` is a body of ``POST /sweeps``.
    """

    id: str
    state: Literal["ready"] = "ready"
    name: str
    title: str
    question: str
    expect: str
    page: str
    needs: list[str]
    request: dict[str, Any]
