"""From what was typed into the form to the body of a request; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_alpha.axes import parse_axis, parse_whole_axis
from lora_alpha.spec import short_number

SPACES = ("lora", "full")
SCHEDULE = "write constant, ramp 0.1 in 100, hold update_norm 7, or hold drift_ratio 0.01"


class FormError(Exception):
    """Text that cannot be read; ``messages`` by field."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        self.messages = dict(messages)
        super().__init__("; ".join(self.messages.values()))


def body_from(workload: str, values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``POST /sweeps``; empty fields are left to the workload's defaults.

    Training fields go as typed: their declaration reads them, and says what is wrong with them.

    Raises:
        FormError: With every field whose text cannot be read.
    """
    body: dict[str, Any] = {"workload": workload}
    messages: dict[str, str] = {}
    for name, value in values.items():
        if value is None or value in ("", []):
            continue
        try:
            body[name] = _READERS.get(name, _plain)(value)
        except ValueError as error:
            messages[name] = str(error)
    if chosen := options_from(options):
        body["workload_options"] = chosen
    rule = {key: body.pop(f"rule_{key}") for key in ("coefficient", "exponent") if f"rule_{key}" in body}
    if rule:
        body["alpha_rule"] = rule
    kinds, spaces = body.pop("probe_kinds", None), body.pop("probe_spaces", "both")
    if "probes" in body:
        chosen_spaces = list(SPACES) if spaces == "both" else [spaces]
        body["probes"] = {"at": body["probes"], "kinds": kinds or ["extremes"], "spaces": chosen_spaces}
    if messages:
        raise FormError(messages)
    return body


def options_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """The workload options of a request, as typed; empty ones are left to their defaults.

    Numbers stay text: the option's type reads them, and a revision called 2 is no number.
    """
    return {name: value for name, value in options.items() if value not in (None, "")}


def named(component_ids: Sequence[Mapping[str, str]], values: Sequence[Any]) -> dict[str, Any]:
    """Values of a pattern-matched group of components, by the name in their ids."""
    return {item["name"]: value for item, value in zip(component_ids, values, strict=True)}


def show_axis(values: list[float]) -> str:
    """Axis values as the user would type them.

    >>> show_axis([32.0, 64.0, 2e-4])
    '32, 64, 2e-4'
    """
    return ", ".join(short_number(float(value)) for value in values)


def show_schedule(schedule: Mapping[str, Any] | None) -> str:
    """A schedule of α as the user would type it.

    >>> show_schedule({"kind": "ramp", "start": 0.1, "ramp_steps": 100})
    'ramp 0.1 in 100'
    """
    kind = (schedule or {}).get("kind", "constant")
    if schedule is None or kind == "constant":
        return "constant"
    if kind == "ramp":
        return f"ramp {short_number(schedule['start'])} in {schedule['ramp_steps']}"
    return f"hold {schedule['target_metric']} {short_number(schedule['target'])}"


def _schedule(value: str) -> dict[str, Any]:
    match value.replace("→1", " ").split():
        case ["constant"]:
            return {"kind": "constant"}
        case ["ramp", start, "in", steps] if steps.isdigit():
            return {"kind": "ramp", "start": _number(start), "ramp_steps": int(steps)}
        case ["hold", ("update_norm" | "drift_ratio") as metric, target]:
            return {"kind": "hold", "target_metric": metric, "target": _number(target)}
    raise ValueError(f"got {value!r}: {SCHEDULE}")


def _moments(value: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in _tags(value)]


def _plain(value: Any) -> Any:
    return value


def _tags(value: Any) -> list[str]:
    return value if isinstance(value, list) else [part.strip() for part in value.split(",") if part.strip()]


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"got {value!r}: write a number such as 0.01 or 2e-4") from None


_READERS: dict[str, Callable[[Any], Any]] = {
    "ranks": parse_whole_axis,
    "seeds": parse_whole_axis,
    "alphas": parse_axis,
    "lrs": parse_axis,
    "tags": _tags,
    "alpha_schedule": _schedule,
    "probes": _moments,
    "probe_kinds": _tags,
    "lr_ratio": _number,
    "rule_coefficient": _number,
    "rule_exponent": _number,
}
