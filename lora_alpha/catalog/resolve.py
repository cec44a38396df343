"""From what a user wrote to a complete sweep: defaults from the workload, every problem at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lora_alpha.catalog import WORKLOADS, workload_info
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.metrics import describe
from lora_alpha.request import SweepRequest
from lora_alpha.spec import SweepSettings, SweepSpec, TrainSettings, TrainSpec, count_grid, expand

REFERENCE_LR = 2e-4  # the lr at which every built-in workload's α grid was measured
MAX_RUNS = 20_000
MAX_QUOTED = 60
TRAINING = set(TrainSettings.model_fields)
WITHIN_STEPS = ("warmup", "eval_every", "dynamics_every")  # in a short run these are shortened, too


def resolve(request: SweepRequest) -> SweepSpec:
    """The complete sweep that ``request`` asks for.

    Only ``workload`` is required. Where α is left open its default grid, measured at lr 2e-4, is shifted
    by the power of two nearest to 2e-4/lr, because α*·η is roughly constant.

    Raises:
        InvalidSpec: With every invalid field, each saying what was given and what is allowed.
    """
    try:
        info = workload_info(request.workload)
    except InvalidSpec as unknown:
        raise InvalidSpec([*unknown.problems, *_grid_problems(request)]) from None
    defaults = info.defaults
    given = request.model_dump(include=TRAINING, exclude_none=True)
    settings = TrainSettings.model_validate({**defaults.model_dump(include=TRAINING), **given})
    problems = [
        *_option_problems(info, request),
        *_grid_problems(request),
        *_step_problems(request, given, steps=settings.steps),
        *_schedule_problems(request, settings),
        *_metric_problems(info, request),
    ]
    if problems:
        raise InvalidSpec(problems)
    lrs = request.lrs or defaults.lrs
    cells_only = bool(request.cells) and not any(
        (request.methods, request.ranks, request.alphas, request.lrs)
    )
    kept = {name: getattr(request, name) for name in SweepSettings.model_fields}
    if request.metric is not None:
        kept["goal"] = describe(request.metric, goal=request.goal, declared=info.metrics).goal
    spec = SweepSpec(
        name=request.name or "",
        train=_train(request, info, settings),
        methods=[] if cells_only else request.methods or defaults.methods,
        ranks=request.ranks or defaults.ranks,
        alphas=_alphas(request, defaults, lrs),
        alpha_rule=request.rule,
        lrs=lrs,
        seeds=request.seeds or defaults.seeds,
        cells=request.cells,
        tags=request.tags,
        **kept,
    )
    check_size(spec)
    return spec


def check_size(spec: SweepSpec) -> None:
    """Refuse a sweep of more than ``MAX_RUNS`` runs.

    Raises:
        InvalidSpec: If it is; says how many runs it asks for.
    """
    num_runs = count_grid(spec)
    if num_runs <= MAX_RUNS:
        num_runs = len(expand(spec))
    if num_runs > MAX_RUNS:
        message = f"this asks for {num_runs:,} runs: the most is {MAX_RUNS:,}"
        raise InvalidSpec([FieldProblem("sweep", f"{message}; take fewer ranks, alphas, lrs or seeds")])


def _train(request: SweepRequest, info: WorkloadInfo, settings: TrainSettings) -> TrainSpec:
    shortened = {name: min(getattr(settings, name), settings.steps) for name in WITHIN_STEPS}
    return TrainSpec(
        **(settings.model_dump() | shortened),
        workload=info.name,
        workload_options=info.options.model_validate(request.workload_options).model_dump(mode="json"),
        adapter_steps=_adapter_steps(request, settings.steps),
    )


def _adapter_steps(request: SweepRequest, steps: int) -> list[int]:
    """Steps between start and end at which a probe is planned: the runs keep their adapters there."""
    planned = request.probes.at if request.probes else []
    return sorted({at for at in planned if isinstance(at, int) and 0 < at < steps})


def _alphas(request: SweepRequest, defaults: SweepDefaults, lrs: list[float]) -> list[float]:
    if request.alphas:
        return request.alphas
    mean_lr = math.exp(sum(math.log(lr) for lr in lrs) / len(lrs))
    shift = 2.0 ** round(math.log2(REFERENCE_LR / mean_lr))
    return [alpha * shift for alpha in defaults.alphas]


def _option_problems(info: WorkloadInfo, request: SweepRequest) -> list[FieldProblem]:
    try:
        info.options.model_validate(request.workload_options)
    except ValidationError as error:
        return problems_from(error, prefix="workload_options")
    return []


def _grid_problems(request: SweepRequest) -> list[FieldProblem]:
    problems = []
    known = ", ".join(METHODS)
    for name in [*(request.methods or []), *(cell.method for cell in request.cells)]:
        if name not in METHODS:
            problems.append(FieldProblem("methods", f"got {name!r}: choose from {known}"))
    for index, cell in enumerate(request.cells):
        info = METHODS.get(cell.method)
        if info and info.uses_rank and (cell.rank is None or cell.alpha is None):
            problems.append(FieldProblem(f"cells.{index}", f"{cell.method} needs a rank and an alpha"))
    return problems


def _step_problems(request: SweepRequest, given: Mapping[str, Any], *, steps: int) -> list[FieldProblem]:
    problems = [
        FieldProblem(name, f"got {given[name]}: must be at most the {steps} steps of the run")
        for name in ("warmup", "eval_every")
        if given.get(name, 0) > steps
    ]
    late = [at for at in (request.probes.at if request.probes else []) if isinstance(at, int) and at > steps]
    return problems + [
        FieldProblem("probes.at", f"got {at}: must be at most the {steps} steps") for at in late
    ]


def _metric_problems(info: WorkloadInfo, request: SweepRequest) -> list[FieldProblem]:
    if request.metric is None:
        return [FieldProblem("goal", "is about a metric: name it")] if request.goal is not None else []
    try:
        describe(request.metric, goal=request.goal, declared=info.metrics)
    except InvalidSpec as unknown:
        return list(unknown.problems)
    return []


def _schedule_problems(request: SweepRequest, settings: TrainSettings) -> list[FieldProblem]:
    """A controlled α needs steps that are watched, and a target that s can move."""
    schedules = [("alpha_schedule", request.alpha_schedule)]
    schedules += [
        (f"cells.{index}.alpha_schedule", cell.alpha_schedule) for index, cell in enumerate(request.cells)
    ]
    problems = []
    for field, schedule in schedules:
        if schedule.kind != "hold":
            continue
        if not settings.dynamics_every:
            message = (
                "got kind 'hold' with dynamics_every 0: α is controlled at the steps at which signal and "
                "drift are recorded; set dynamics_every to 1 or more"
            )
            problems.append(FieldProblem(f"{field}.kind", message))
        if schedule.target_metric == "drift_ratio" and settings.optimizer == "adamw":
            message = (
                "got 'drift_ratio' with optimizer 'adamw': Adam's steps are as large as the learning rate "
                "whatever s is, so the drift ratio does not follow α and cannot be held by it; take "
                "target_metric 'update_norm', or optimizer 'sgd'"
            )
            problems.append(FieldProblem(f"{field}.target_metric", message))
    return problems


def problems_from(error: ValidationError, *, prefix: str = "") -> list[FieldProblem]:
    """Pydantic's complaints as field problems that name what was given."""
    problems = []
    for item in error.errors():
        location = ".".join(str(part) for part in (*([prefix] if prefix else []), *item["loc"]))
        given = f"got {shorten(item['input'])}: " if item["type"] != "missing" else ""
        problems.append(FieldProblem(location or "body", f"{given}{item['msg'][0].lower()}{item['msg'][1:]}"))
    return problems


def shorten(given: Any) -> str:
    """``given`` as a message quotes it: its beginning is enough to recognise it.

    >>> shorten("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx …"
    """
    text = repr(given)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]} …"


__all__ = ["MAX_RUNS", "WORKLOADS", "check_size", "problems_from", "resolve", "shorten"]
