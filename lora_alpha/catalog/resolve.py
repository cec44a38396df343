"""From what a user wrote to a complete sweep: defaults from the workload, every problem at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from lora_alpha.catalog import WORKLOADS, workload_info
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.request import SweepRequest
from lora_alpha.spec import SweepSpec, TrainSpec, count_grid, expand

REFERENCE_LR = 2e-4  # the lr at which every built-in workload's α grid was measured
MAX_RUNS = 20_000
MAX_QUOTED = 60


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
    problems = [
        *_option_problems(info, request),
        *_grid_problems(request),
        *_train_problems(request, info),
        *_schedule_problems(request, info),
    ]
    if problems:
        raise InvalidSpec(problems)
    defaults = info.defaults
    lrs = request.lrs or defaults.lrs
    cells_only = bool(request.cells) and not any(
        (request.methods, request.ranks, request.alphas, request.lrs)
    )
    spec = SweepSpec(
        name=request.name or "",
        train=_train(request, info),
        methods=[] if cells_only else request.methods or defaults.methods,
        ranks=request.ranks or defaults.ranks,
        alphas=_alphas(request, defaults, lrs),
        alpha_rule=request.rule,
        lrs=lrs,
        seeds=request.seeds or defaults.seeds,
        lr_ratio=request.lr_ratio,
        alpha_schedule=request.alpha_schedule,
        cells=request.cells,
        probes=request.probes,
        tags=request.tags,
        search=request.search,
        priority=request.priority,
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


def _train(request: SweepRequest, info: WorkloadInfo) -> TrainSpec:
    defaults = info.defaults

    def chosen(field: str) -> Any:
        given = getattr(request, field)
        return getattr(defaults, field) if given is None else given

    steps = chosen("steps")
    options = info.options.model_validate(request.workload_options)
    return TrainSpec(
        workload=info.name,
        workload_options=options.model_dump(mode="json"),
        steps=steps,
        batch_size=chosen("batch_size"),
        optimizer=chosen("optimizer"),
        lr_schedule=chosen("lr_schedule"),
        warmup=min(chosen("warmup"), steps),
        weight_decay=request.weight_decay,
        betas=request.betas,
        eps=request.eps,
        clip=request.clip,
        lora_dropout=request.lora_dropout,
        eval_every=min(chosen("eval_every"), steps),
        checkpoint_steps=chosen("checkpoint_steps"),
        dynamics_every=min(chosen("dynamics_every"), steps),
        adapter_steps=_adapter_steps(request, steps),
        dtype=request.dtype,
        init_adapter=request.init_adapter,
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


def _train_problems(request: SweepRequest, info: WorkloadInfo) -> list[FieldProblem]:
    problems = []
    steps = request.steps or info.defaults.steps
    checks: list[tuple[str, int | None, Callable[[int], bool], str]] = [
        ("warmup", request.warmup, lambda value: value <= steps, f"at most the {steps} steps of the run"),
        (
            "eval_every",
            request.eval_every,
            lambda value: value <= steps,
            f"at most the {steps} steps of the run",
        ),
    ]
    for at in request.probes.at if request.probes else []:
        if isinstance(at, int):
            checks.append(("probes.at", at, lambda value: value <= steps, f"at most the {steps} steps"))
    for field, value, allowed, message in checks:
        if value is not None and not allowed(value):
            problems.append(FieldProblem(field, f"got {value}: must be {message}"))
    return problems


def _schedule_problems(request: SweepRequest, info: WorkloadInfo) -> list[FieldProblem]:
    """A controlled α needs steps that are watched, and a target that s can move."""
    optimizer = request.optimizer or info.defaults.optimizer
    watched = info.defaults.dynamics_every if request.dynamics_every is None else request.dynamics_every
    schedules = [("alpha_schedule", request.alpha_schedule)]
    schedules += [
        (f"cells.{index}.alpha_schedule", cell.alpha_schedule) for index, cell in enumerate(request.cells)
    ]
    problems = []
    for field, schedule in schedules:
        if schedule.kind != "hold":
            continue
        if not watched:
            message = (
                "got kind 'hold' with dynamics_every 0: α is controlled at the steps at which signal and "
                "drift are recorded; set dynamics_every to 1 or more"
            )
            problems.append(FieldProblem(f"{field}.kind", message))
        if schedule.target_metric == "drift_ratio" and optimizer == "adamw":
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
