"""What a user asks for: a sweep of which everything but the workload may be left open."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from lora_alpha.spec import (
    AlphaRule,
    AlphaSchedule,
    Configuration,
    DType,
    Frozen,
    LearningRate,
    LRSchedule,
    Optimizer,
    Positive,
    ProbePlan,
    Rank,
    Search,
    Seed,
)

Tag = Annotated[str, Field(min_length=1, max_length=64)]


class SweepRequest(Frozen):
    """Body of ``POST /sweeps`` and ``/sweeps/plan``. Only ``workload`` is required."""

    name: Annotated[str, Field(max_length=200)] | None = None
    workload: Annotated[str, Field(max_length=200)]
    workload_options: dict[str, Any] = {}
    methods: Annotated[list[str], Field(min_length=1, max_length=16)] | None = None
    ranks: Annotated[list[Rank], Field(min_length=1, max_length=64)] | None = None
    alphas: Annotated[list[Positive], Field(min_length=1, max_length=128)] | None = None
    alpha_rule: AlphaRule | None = None
    lrs: Annotated[list[LearningRate], Field(min_length=1, max_length=64)] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100)] | None = None
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    optimizer: Optimizer | None = None
    lr_schedule: Annotated[
        LRSchedule | None, Field(validation_alias=AliasChoices("lr_schedule", "schedule"))
    ] = None
    warmup: Annotated[int, Field(ge=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(ge=0, le=1)] = 1e-8
    clip: Positive | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lr_ratio: Positive | None = None
    eval_every: Annotated[int, Field(ge=1)] | None = None
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    dynamics_every: Annotated[int, Field(ge=0)] | None = None
    dtype: DType = "float32"
    init_adapter: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    alpha_schedule: AlphaSchedule = AlphaSchedule()
    probes: ProbePlan | None = None
    tags: Annotated[list[Tag], Field(max_length=32)] = []
    search: Search = Search()
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    cells: Annotated[list[Configuration], Field(max_length=20_000)] = []

    @property
    def rule(self) -> AlphaRule:
        """The α rule, LoRA-α's 256·√r unless given."""
        return self.alpha_rule or AlphaRule()
