"""The frozen vocabulary: what a sweep, a run and a probe are, and how one becomes the other.

``SweepSpec`` is complete (every default filled in by ``catalog.resolve``). ``expand`` turns it into
``RunSpec``s in a fixed order without duplicates, so that the same request always gives the same runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from lora_alpha.methods import METHODS, method_scale
from lora_alpha.metrics import Goal
from lora_alpha.scaling import law_alpha

RunState = Literal["queued", "running", "finished", "failed", "cancelled", "lost"]
SweepState = Literal["queued", "running", "paused", "stopping", "finished", "stopped", "cancelled", "failed"]
# States from which nothing happens by itself any more; jobs and probes end as runs do.
ENDED_RUNS: tuple[RunState, ...] = ("finished", "failed", "cancelled", "lost")
ENDED_SWEEPS: tuple[SweepState, ...] = ("finished", "failed", "cancelled", "stopped")
Optimizer = Literal["adamw", "sgd"]
LRSchedule = Literal["constant", "cosine"]
DType = Literal["float64", "float32", "bfloat16", "float16"]
Objective = Literal["final", "best"]
ProbeKind = Literal["extremes", "top", "density", "trace"]
ProbeSpace = Literal["lora", "full"]

Rank = Annotated[int, Field(ge=1, le=4096)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
LearningRate = Annotated[float, Field(gt=0, le=100.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
METRIC_NAME = r"^[\w./@:+-]+$"
MetricName = Annotated[str, Field(min_length=1, max_length=100, pattern=METRIC_NAME)]


class Frozen(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _split_text(value: Any) -> Any:
    """``"0.9, 0.999"`` as its parts, for pydantic to read; anything else as it is."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Beta, Beta], BeforeValidator(_split_text)]
BASIC: JsonDict = {"basic": True}


class AlphaRule(Frozen):
    """α = coefficient · rank^exponent."""

    coefficient: Positive = 256.0
    exponent: Annotated[float, Field(ge=-4, le=4)] = 0.5

    def alpha(self, rank: int) -> float:
        """α at ``rank`` in the α/r convention."""
        return law_alpha(rank, coefficient=self.coefficient, exponent=self.exponent)


class AlphaSchedule(Frozen):
    """How α moves during training; the run's α is the value that ``factor`` 1 stands for.

    ``constant``; ``ramp``: the factor goes linearly from ``start`` to 1 over the first ``ramp_steps``;
    ``hold``: the factor is controlled, at each step that signal and drift are recorded, so that
    ``target_metric`` holds ``target``; it stays within 1/16 … 16. Only s moves: A and B stay as they are.
    """

    kind: Literal["constant", "ramp", "hold"] = "constant"
    start: Positive = 0.1
    ramp_steps: Annotated[int, Field(ge=1)] = 100
    target_metric: Literal["drift_ratio", "update_norm"] = "drift_ratio"
    target: Positive = 0.01

    @property
    def label(self) -> str:
        """The schedule in a few words.

        >>> AlphaSchedule(kind="ramp", start=0.1, ramp_steps=300).label
        'ramp 0.1→1 in 300'
        >>> AlphaSchedule(kind="hold", target_metric="update_norm", target=2).label
        'hold update_norm 2'
        """
        if self.kind == "ramp":
            return f"ramp {short_number(self.start)}→1 in {self.ramp_steps}"
        if self.kind == "hold":
            return f"hold {self.target_metric} {short_number(self.target)}"
        return "constant"


class Configuration(Frozen):
    """One point of a sweep: everything that may differ between runs trained in one pack.

    The three ratios are the value on B divided by the value on A.
    """

    method: str
    rank: Rank | None = None
    alpha: Positive | None = None
    lr: LearningRate
    seed: Seed = 0
    lr_ratio: Positive = 1.0
    eps_ratio: Positive = 1.0
    weight_decay_ratio: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    alpha_schedule: AlphaSchedule = AlphaSchedule()

    @property
    def scale(self) -> float | None:
        """Effective scale s, None for full fine-tuning."""
        return method_scale(self.method, rank=self.rank, alpha=self.alpha)


class TrainSettings(Frozen):
    """How runs are trained: each field once, with its type, bounds, universal default, title and help.

    ``SweepDefaults`` (a workload's own defaults) and ``TrainSpec`` extend it, ``SweepRequest`` has each field
    left open, and the form and ``lora-alpha sweep --train`` are built from its JSON schema. So they all know
    a field that is added here; what remains is its use in the engine. ``basic`` in the schema says that a
    form shows the field at once, not only where more is asked for.
    """

    steps: int = Field(
        ge=1,
        le=10_000_000,
        title="Steps",
        description="Optimiser steps per run.",
        json_schema_extra=BASIC,
    )
    batch_size: int = Field(
        ge=1, le=65_536, title="Batch size", description="Examples per step.", json_schema_extra=BASIC
    )
    optimizer: Optimizer = Field(
        default="adamw", title="Optimiser", description="sgd has no momentum.", json_schema_extra=BASIC
    )
    lr_schedule: LRSchedule = Field(
        default="cosine",
        validation_alias=AliasChoices("lr_schedule", "schedule"),
        title="Schedule",
        description="Of η, after the warm-up.",
        json_schema_extra=BASIC,
    )
    warmup: int = Field(
        default=10,
        ge=0,
        title="Warm-up steps",
        description="η rises linearly over these.",
        json_schema_extra=BASIC,
    )
    eval_every: int = Field(
        default=25,
        ge=1,
        title="Evaluate every",
        description="Steps between two held-out losses.",
        json_schema_extra=BASIC,
    )
    weight_decay: float = Field(default=0.0, ge=0, le=100, title="Weight decay", description="Decoupled.")
    betas: Betas = Field(
        default=(0.9, 0.999), title="β1, β2", description="Of adamw: decay of its two running means."
    )
    eps: float = Field(
        default=1e-8, ge=0, le=1, title="ε", description="Of adamw: added to the root of its second mean."
    )
    clip: Positive | None = Field(
        default=None, title="Gradient clip", description="Largest norm, per configuration; left open: none."
    )
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, title="Adapter dropout", description="On the adapters' inputs."
    )
    checkpoint_steps: int = Field(
        default=100,
        ge=1,
        title="Checkpoint every",
        description="Steps; an interrupted run repeats at most so many.",
    )
    dynamics_every: int = Field(
        default=50,  # below 5 % of the time (benchmarks/dynamics.py)
        ge=0,
        title="Signal-drift every",
        description="Steps; 0 for none.",
    )
    dtype: DType = Field(default="float32", title="Precision", description="Of weights and training.")
    init_adapter: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None,
        title="Start from adapter",
        description="PEFT folder, below an allowed root; left open: B = 0.",
    )


class TrainSpec(TrainSettings):
    """Everything that the runs of one sweep share; runs with equal TrainSpec may share a pack.

    After each of ``adapter_steps`` the runs keep their adapters, for planned probes.
    """

    workload: str
    workload_options: dict[str, Any] = {}
    adapter_steps: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=64)] = []


def schema_fields(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The JSON schema of each field of ``model``, without the null of an optional one: to build inputs from.

    >>> schema_fields(TrainSettings)["clip"]["exclusiveMinimum"]
    0
    """
    fields: dict[str, dict[str, Any]] = model.model_json_schema()["properties"]
    for field in fields.values():
        for kind in field.pop("anyOf", []):
            if kind != {"type": "null"}:
                field.update(kind)
    return fields


class ProbePlan(Frozen):
    """Hessian probes attached to every run of a sweep: when, and which."""

    at: Annotated[list[Literal["init", "end"] | Annotated[int, Field(ge=0)]], Field(max_length=64)] = ["end"]
    kinds: Annotated[list[ProbeKind], Field(min_length=1)] = ["extremes"]
    spaces: Annotated[list[ProbeSpace], Field(min_length=1)] = ["lora", "full"]


class ProbeSettings(Frozen):
    """What a Hessian probe measures, how exactly, and on how many examples.

    ``extremes``: λ_max and λ_min; ``top``: the ``top_k`` largest eigenvalues; ``density``: the spectral
    density from ``num_vectors`` start vectors of ``iterations`` products each; ``trace``: until its
    standard error is below ``trace_error`` of it. The probed loss is the mean over ``num_batches``
    training batches of ``batch_size`` examples each (None: the run's or the workload's batch size).
    """

    kind: ProbeKind = "extremes"
    space: ProbeSpace = "lora"
    tolerance: float = Field(default=1e-3, gt=0, le=0.1, title="Tolerance", description="Relative residual.")
    top_k: int = Field(default=10, ge=1, le=200, title="Eigenvalues k", description="Of kind top.")
    max_products: int = Field(
        default=300, ge=10, le=10_000, title="Most products", description="Hessian products."
    )
    num_vectors: int = Field(
        default=8, ge=2, le=200, title="Start vectors", description="Of density and trace."
    )
    iterations: int = Field(
        default=60, ge=5, le=1000, title="Lanczos iterations", description="Of kind density."
    )
    trace_error: float = Field(
        default=0.02, ge=0, le=1, title="Trace error", description="Relative standard error."
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=65_536, title="Batch size", description="As trained unless given."
    )
    num_batches: int = Field(
        default=1, ge=1, le=4096, title="Batches", description="Over which the loss is a mean."
    )
    dtype: Literal["float32", "float64"] = "float32"
    probe_seed: Seed = Field(
        default=0, title="Seed of the probe", description="Of batches and start vectors."
    )
    per_layer: bool = False
    strategy: Literal["auto", "retained", "fresh"] = "auto"


class ProbeSpec(ProbeSettings):
    """A probe job: settings plus a point, either a run at a step or a fresh adapter.

    ``run`` with ``step`` (None: its end; 0: before training), or ``workload`` with rank, α and seed.
    """

    run: str | None = None
    step: Annotated[int, Field(ge=0)] | None = None
    workload: str | None = None
    workload_options: dict[str, Any] = {}
    method: str = "lora"
    rank: Rank | None = None
    alpha: Positive | None = None
    seed: Seed = 0


class Search(Frozen):
    """``grid`` trains every cell; ``adaptive`` starts coarse and refines around each optimum."""

    kind: Literal["grid", "adaptive"] = "grid"


class SweepSettings(Frozen):
    """What a request says of its sweep beside axes and training, kept as it is.

    ``metric`` is what α is chosen by, on every page, in the API and by an adaptive search: the held-out loss
    unless given. ``goal`` says which way is better where its declaration and its name do not.
    """

    metric: MetricName | None = None
    goal: Goal | None = None
    lr_ratio: Positive | None = None
    alpha_schedule: AlphaSchedule = AlphaSchedule()
    probes: ProbePlan | None = None
    search: Search = Search()
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0


class SweepSpec(SweepSettings):
    """A complete sweep: shared training settings times a grid, plus explicit extra cells."""

    name: str = ""
    train: TrainSpec
    methods: list[str]
    ranks: list[Rank]
    alphas: list[Positive]
    alpha_rule: AlphaRule = AlphaRule()
    lrs: list[LearningRate]
    seeds: list[Seed]
    cells: list[Configuration] = []
    tags: list[str] = []


class RunSpec(Frozen):
    """One training run."""

    name: str
    train: TrainSpec
    configuration: Configuration


def expand(spec: SweepSpec) -> list[RunSpec]:
    """Every run of ``spec``: method, rank, α, lr, seed vary in that order, seed fastest.

    Duplicates are removed (``full`` ignores ranks and α; ``lora-alpha`` takes α from the rule), the
    first occurrence stays. Names come from what varies, as in ``r16-a64-lr2e-4-s3``.
    """
    grid = [configuration for method in spec.methods for configuration in _method_grid(spec, method)]
    configurations = list(dict.fromkeys(_key(c) for c in [*grid, *spec.cells]))
    by_key = {_key(c): c for c in [*spec.cells, *grid]}
    unique = [by_key[key] for key in configurations]
    return name_runs(spec.train, unique)


def count_grid(spec: SweepSpec) -> int:
    """Runs of the grid of ``spec``, explicit cells left out, without making them.

    A request of a few hundred numbers can ask for millions of runs: count before ``expand``.
    """
    lrs_and_seeds = len(set(spec.lrs)) * len(set(spec.seeds))
    total = 0
    for method in set(spec.methods):
        info = METHODS[method]
        ranks = len(set(spec.ranks)) if info.uses_rank else 1
        alphas = len(set(spec.alphas)) if info.uses_rank and not info.alpha_from_rule else 1
        total += ranks * alphas * lrs_and_seeds
    return total


def name_runs(train: TrainSpec, configurations: Sequence[Configuration]) -> list[RunSpec]:
    """Names built from the axes that vary among ``configurations``."""
    methods = {c.method for c in configurations}
    lrs = {c.lr for c in configurations}
    ratios = {c.lr_ratio for c in configurations}
    schedules = {c.alpha_schedule.label for c in configurations}
    runs = []
    for c in configurations:
        parts = [c.method] if len(methods) > 1 or not METHODS[c.method].uses_rank else []
        if c.rank is not None and c.alpha is not None:
            parts += [f"r{c.rank}", f"a{short_number(c.alpha)}"]
        if len(lrs) > 1 or c.rank is None:
            parts.append(f"lr{short_number(c.lr)}")
        if len(ratios) > 1:
            parts.append(f"x{short_number(c.lr_ratio)}")
        if len(schedules) > 1:
            parts.append(c.alpha_schedule.label.replace(" ", "_"))
        parts.append(f"s{c.seed}")
        runs.append(RunSpec(name="-".join(parts), train=train, configuration=c))
    return runs


def short_number(value: float) -> str:
    """A number as people write it: ``64``, ``2e-4``, ``724.08``.

    >>> [short_number(x) for x in (64.0, 2e-4, 724.0773, 0.5, 3.2e-5)]
    ['64', '2e-4', '724.08', '0.5', '3.2e-5']
    """
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 0.01 <= abs(value) < 1e6:
        return f"{value:.6g}" if abs(value) < 1 else f"{value:.5g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _method_grid(spec: SweepSpec, method: str) -> Iterable[Configuration]:
    info = METHODS[method]
    lr_ratio = spec.lr_ratio if spec.lr_ratio is not None else info.default_lr_ratio
    if not info.uses_rank:
        for lr, seed in itertools.product(spec.lrs, spec.seeds):
            yield Configuration(method=method, lr=lr, seed=seed)
        return
    for rank in spec.ranks:
        alphas = [spec.alpha_rule.alpha(rank)] if info.alpha_from_rule else spec.alphas
        for alpha, lr, seed in itertools.product(alphas, spec.lrs, spec.seeds):
            yield Configuration(
                method=method,
                rank=rank,
                alpha=alpha,
                lr=lr,
                seed=seed,
                lr_ratio=lr_ratio,
                alpha_schedule=spec.alpha_schedule,
            )


def _key(configuration: Configuration) -> str:
    return configuration.model_dump_json()
