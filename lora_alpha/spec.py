"""The frozen vocabulary: what a sweep, a run and a probe are, and how one becomes the other.

``SweepSpec`` is complete (every default filled in by ``catalog.resolve``). ``expand`` turns it into
``RunSpec``s in a fixed order without duplicates, so that the same request always gives the same runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lora_alpha.methods import METHODS, method_scale
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

Rank = Annotated[int, Field(ge=1, le=4096)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
LearningRate = Annotated[float, Field(gt=0, le=100.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Frozen(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class TrainSpec(Frozen):
    """Everything that the runs of one sweep share; runs with equal TrainSpec may share a pack."""

    workload: str
    workload_options: dict[str, Any] = {}
    steps: Annotated[int, Field(ge=1, le=10_000_000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    optimizer: Optimizer = "adamw"
    lr_schedule: LRSchedule = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 10
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: Annotated[float, Field(ge=0, le=1)] = 1e-8
    clip: Positive | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    eval_every: Annotated[int, Field(ge=1)] = 25
    checkpoint_steps: Annotated[int, Field(ge=1)] = 100
    dynamics_every: Annotated[int, Field(ge=0)] = 0
    adapter_steps: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=64)] = []
    dtype: DType = "float32"
    init_adapter: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class ProbePlan(Frozen):
    """Hessian probes attached to every run of a sweep: when, and which."""

    at: Annotated[list[Literal["init", "end"] | Annotated[int, Field(ge=0)]], Field(max_length=64)] = ["end"]
    kinds: Annotated[list[Literal["extremes", "top", "density", "trace"]], Field(min_length=1)] = ["extremes"]
    spaces: Annotated[list[Literal["lora", "full"]], Field(min_length=1)] = ["lora", "full"]


ProbeKind = Literal["extremes", "top", "density", "trace"]
ProbeSpace = Literal["lora", "full"]


class ProbeSettings(Frozen):
    """What a Hessian probe measures, how exactly, and on how many examples.

    ``extremes``: λ_max and λ_min; ``top``: the ``top_k`` largest eigenvalues; ``density``: the spectral
    density from ``num_vectors`` start vectors of ``iterations`` products each; ``trace``: until its
    standard error is below ``trace_error`` of it. The probed loss is the mean over ``num_batches``
    training batches of ``batch_size`` examples each (None: the run's or the workload's batch size).
    """

    kind: ProbeKind = "extremes"
    space: ProbeSpace = "lora"
    top_k: Annotated[int, Field(ge=1, le=200)] = 10
    tolerance: Annotated[float, Field(gt=0, le=0.1)] = 1e-3
    max_products: Annotated[int, Field(ge=10, le=10_000)] = 300
    num_vectors: Annotated[int, Field(ge=2, le=200)] = 8
    iterations: Annotated[int, Field(ge=5, le=1000)] = 60
    trace_error: Annotated[float, Field(ge=0, le=1)] = 0.02
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    num_batches: Annotated[int, Field(ge=1, le=4096)] = 1
    dtype: Literal["float32", "float64"] = "float32"
    probe_seed: Seed = 0
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


class SweepSpec(Frozen):
    """A complete sweep: shared training settings times a grid, plus explicit extra cells."""

    name: str = ""
    train: TrainSpec
    methods: list[str]
    ranks: list[Rank]
    alphas: list[Positive]
    alpha_rule: AlphaRule = AlphaRule()
    lrs: list[LearningRate]
    seeds: list[Seed]
    lr_ratio: Positive | None = None
    alpha_schedule: AlphaSchedule = AlphaSchedule()
    cells: list[Configuration] = []
    probes: ProbePlan | None = None
    tags: list[str] = []
    search: Search = Search()
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0


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
