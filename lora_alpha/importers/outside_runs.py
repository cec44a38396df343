"""Runs that were logged by another tool: their hyperparameters under whatever names, their curves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import LORA, METHODS, recognised_method
from lora_alpha.metrics import Goal, guess_goal
from lora_alpha.wire.jobs import IngestPoints, IngestRun, IngestSeries

Points = dict[str, list[tuple[int, float]]]

# The names that people and trainers use, lower case; a prefix like "peft_config." or "config/" is cut off.
ALIASES: dict[str, tuple[str, ...]] = {
    "method": ("method", "peft_type"),
    "rank": ("rank", "r", "lora_r", "lora_rank", "lora_dim"),
    "alpha": ("alpha", "lora_alpha"),
    "scale": ("scale", "lora_scale"),
    "lr": ("lr", "learning_rate", "lr_max"),
    "lr_ratio": ("lr_ratio", "loraplus_lr_ratio"),
    "seed": ("seed", "random_seed", "data_seed"),
    "steps": ("steps", "max_steps", "num_training_steps", "total_steps"),
    "workload": ("workload", "task", "dataset", "dataset_name"),
}
LOSSES = {
    "train_loss": ("train_loss", "loss", "training_loss", "train_loss_step"),
    "eval_loss": ("eval_loss", "val_loss", "valid_loss", "validation_loss", "test_loss"),
}
MAX_POINTS = 20_000  # in one request


@dataclass
class OutsideRun:
    """One run as its tool stored it.

    Attributes:
        key: What identifies it in its source; importing it again adds only what is new.
        name: As shown.
        parameters: Hyperparameters by name.
        points: Metric → (step, value) pairs.
        state: How it ended.
        summary: Last values of metrics that have no curve.
        metric: What α is to be chosen by, where the source says so.
        goal: Which way that is better.
    """

    key: str
    name: str
    parameters: dict[str, Any]
    points: Points = field(default_factory=dict)
    state: str = "finished"
    summary: dict[str, float] = field(default_factory=dict)
    metric: str | None = None
    goal: Goal | None = None


def to_ingest(run: OutsideRun, *, sweep_name: str) -> IngestRun:
    """The run as the ingest API takes it.

    Raises:
        InvalidSpec: If rank, α or lr are under none of the known names, or are no numbers.
    """
    found = {name: _find(run.parameters, names) for name, names in ALIASES.items()}
    problems: list[FieldProblem] = []
    numbers = {
        name: _number(found[name], name, run, problems)
        for name in ("rank", "alpha", "scale", "lr", "lr_ratio", "seed", "steps")
    }
    method = _method(found["method"], run.parameters)
    info = METHODS.get(method)
    uses_rank = info is None or info.uses_rank
    needed = ("rank", "alpha", "lr") if uses_rank else ("lr",)
    problems += [
        FieldProblem(f"{run.name}.{name}", f"none of {', '.join(ALIASES[name])} is logged: log one of them")
        for name in needed
        if found[name] is None
    ]
    if problems:
        raise InvalidSpec(problems)
    last = max((step for points in run.points.values() for step, _ in points), default=0)
    rank = numbers["rank"]
    return IngestRun(
        key=run.key[:200],
        sweep_name=sweep_name[:200],
        workload=str(found["workload"] or "external")[:200],
        name=run.name[:200] or None,
        method=method,
        rank=int(rank) if uses_rank and rank is not None else None,
        alpha=numbers["alpha"] if uses_rank else None,
        scale=numbers["scale"],
        lr=numbers["lr"] or 0.0,
        lr_ratio=numbers["lr_ratio"] or 1.0,
        seed=int(numbers["seed"] or 0),
        steps=int(max(numbers["steps"] or 0, last, 1)),
        config={name: value for name, value in run.parameters.items() if value not in (None, "")},
        metric=run.metric,
        goal=run.goal,
    )


def to_points(run: OutsideRun) -> Iterable[IngestPoints]:
    """The run's curves in bounded requests; the last one says how it ended."""
    block: list[IngestSeries] = []
    size = 0
    for metric, points in run.points.items():
        ordered = sorted(dict(points).items())
        for start in range(0, len(ordered), MAX_POINTS):
            part = ordered[start : start + MAX_POINTS]
            if size + len(part) > MAX_POINTS or len(block) >= 200:
                yield IngestPoints(series=block)
                block, size = [], 0
            steps, values = zip(*part, strict=True)
            block.append(
                IngestSeries(metric=metric, steps=list(steps), values=[_finite(value) for value in values])
            )
            size += len(part)
    yield IngestPoints.model_validate(
        {"series": [item.model_dump() for item in block], "state": run.state, "summary": run.summary}
    )


def metric_name(name: str) -> str:
    """A tool's metric under our name: ``eval/loss`` → ``eval_loss``; others keep theirs.

    >>> metric_name("train/loss"), metric_name("val_loss"), metric_name("my metric!")
    ('train_loss', 'eval_loss', 'my_metric_')
    """
    flat = name.strip().lower().replace("/", "_")
    for ours, names in LOSSES.items():
        if flat in names:
            return ours
    return re.sub(r"[^\w./@:+-]", "_", name.strip())[:100]


def is_metric(name: str, value: str | None) -> bool:
    """Whether a column of a table is a result by its name, and its text a finite number.

    >>> is_metric("eval/accuracy", "0.7"), is_metric("lora_r", "8"), is_metric("eval/loss", "")
    (True, False, False)
    """
    try:
        number = float(value or "")
    except ValueError:
        return False
    return metric_name(name) in LOSSES or (guess_goal(name) is not None and math.isfinite(number))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested hyperparameters as dotted names; JSON objects in strings are opened.

    >>> flatten({"peft_config": '{"default": {"r": 8}}', "lr": 1e-4})
    {'peft_config.default.r': 8, 'lr': 0.0001}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = _opened(value)
        if isinstance(inner, Mapping):
            flat.update(flatten(inner, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _opened(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _find(parameters: Mapping[str, Any], names: Iterable[str]) -> Any:
    by_ending = _by_ending(parameters)
    return next((by_ending[name] for name in names if name in by_ending), None)


def _by_ending(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are given, by the last part of their name; the first of equal endings counts."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        if value is not None and value != "":
            found.setdefault(re.split(r"[./]", name.lower())[-1], value)
    return found


def _number(value: Any, name: str, run: OutsideRun, problems: list[FieldProblem]) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        problems.append(FieldProblem(f"{run.name}.{name}", f"got {value!r}: a number is needed"))
        return None
    # Trainers log max_steps = -1 for "by epochs".
    return number if math.isfinite(number) and not (name == "steps" and number < 1) else None


def _method(given: Any, parameters: Mapping[str, Any]) -> str:
    named = str(given or "").lower().replace("_", "-")
    if named and named != LORA.name:
        return named
    return recognised_method(_by_ending(parameters)).name


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
