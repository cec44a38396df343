"""Reads sweeps written for Weights & Biases, and our own request written as YAML.

A W&B sweep says ``method, metric, parameters{name: {value | values | min, max, distribution}}``. We train
grids, so a range becomes the powers of two inside it (α, lr, rank) whatever the distribution's name.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lora_alpha.catalog.resolve import problems_from
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.importers.outside_runs import metric_name
from lora_alpha.metrics import KNOWN
from lora_alpha.request import SweepRequest

AXES = {
    "method": "methods",
    "rank": "ranks",
    "r": "ranks",
    "lora_r": "ranks",
    "alpha": "alphas",
    "lora_alpha": "alphas",
    "lr": "lrs",
    "learning_rate": "lrs",
    "seed": "seeds",
}


def read_sweep_yaml(path: Path) -> SweepRequest:
    """The sweep that the YAML file at ``path`` describes, in either dialect.

    Raises:
        InvalidSpec: With every field that cannot be understood.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidSpec([FieldProblem("file", f"{path} does not exist")]) from None
    except yaml.YAMLError as error:
        raise InvalidSpec([FieldProblem("file", f"{path} is not YAML: {error}")]) from None
    if not isinstance(document, dict):
        raise InvalidSpec([FieldProblem("file", f"{path} holds no mapping of fields")])
    body = from_wandb(document) if "parameters" in document else document
    try:
        return SweepRequest.model_validate(body)
    except ValidationError as error:
        raise InvalidSpec(problems_from(error)) from None


def from_wandb(document: dict[str, Any]) -> dict[str, Any]:
    """A W&B sweep as the body of ``POST /sweeps``.

    Raises:
        InvalidSpec: If a parameter has neither values nor a range, or is varied but is no axis here.
    """
    body: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    if document.get("name"):
        body["name"] = document["name"]
    body |= _metric(document.get("metric"))
    for name, parameter in document["parameters"].items():
        values = _values(parameter)
        if values is None:
            problems.append(
                FieldProblem(f"parameters.{name}", f"got {parameter!r}: give value, values, or min and max")
            )
        elif name in AXES:
            body[AXES[name]] = values
        elif len(values) == 1:
            body[name] = values[0]
        else:
            problems.append(
                FieldProblem(
                    f"parameters.{name}",
                    f"got {len(values)} values: only {', '.join(sorted(AXES))} may vary",
                )
            )
    if problems:
        raise InvalidSpec(problems)
    return body


def _metric(given: Any) -> dict[str, Any]:
    """A W&B sweep's metric, where it is one that our workloads record."""
    if not isinstance(given, dict):
        return {}
    name = metric_name(str(given.get("name", "")))
    known = {metric.name for metric in KNOWN}
    ours = name if name in known else re.split(r"[./]|eval_", name)[-1]
    if ours not in known:
        return {}
    goal = {"minimize": "min", "maximize": "max"}.get(str(given.get("goal")))
    return {"metric": ours, **({"goal": goal} if goal else {})}


def _values(parameter: Any) -> list[Any] | None:
    if not isinstance(parameter, dict):
        return [parameter]
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return list(parameter["values"])
    low, high = parameter.get("min"), parameter.get("max")
    if low is None or high is None or not 0 < low <= high:
        return None
    # log_uniform (as opposed to log_uniform_values) gives its ends as exponents of e.
    if parameter.get("distribution") == "log_uniform":
        low, high = math.exp(low), math.exp(high)
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    powers = [2.0**exponent for exponent in range(first, last + 1)]
    whole = isinstance(low, int) and isinstance(high, int)
    return [int(power) for power in powers] if whole else powers or [low, high]
