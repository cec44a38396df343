"""The fields of the new-sweep form: one record each, so that form, defaults and errors agree.

Those of training are read from their declaration, ``lora_alpha.spec.TrainSettings``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from dashboard import ids
from dashboard.forms import SPACES, show_axis, show_schedule
from lora_alpha.spec import TrainSettings, schema_fields, short_number
from lora_alpha.wire.sweeps import MethodItem

# Short enough that nobody types and submits in between: a submit would miss what was typed.
DEBOUNCE_MS = 150
MANY_OPTIONS = 8  # more than these are folded away
SWEEP_AXES = {
    *("methods", "ranks", "alphas", "lrs", "seeds", "lr_ratio", "name", "tags", "alpha_rule"),
    *("alpha_schedule", "probes"),
}


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes:
        label: What stands above it.
        help: What stands below it.
        kind: ``text``, ``number``, ``methods`` or the choices of a select.
        show: Its text for given defaults (the workload's, or an older sweep's).
        keep: Whether a change of workload leaves it alone.
        limits: Smallest and largest number, as the control names them.
    """

    label: str
    help: str
    kind: str | tuple[str, ...]
    show: Callable[[Mapping[str, Any]], Any]
    keep: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)


def _axis(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda defaults: show_axis(defaults.get(name) or [])


def _value(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda defaults: defaults.get(name)


def _text(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda defaults: _typed(defaults.get(name))


def _typed(value: Any) -> str:
    """``value`` as the user would type it, to the last digit."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_typed, value))
    if isinstance(value, float) and float(short_number(value)) == value:
        return short_number(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _declared(name: str, part: Mapping[str, Any]) -> Field:
    """The field that a JSON schema declares."""
    kinds: dict[str, str | tuple[str, ...]] = {"integer": "number", "boolean": ("false", "true")}
    kind = tuple(part.get("enum", ())) or kinds.get(part["type"], "text")
    show = _value(name) if kind == "number" else _text(name)
    limits = {side: part[bound] for side, bound in (("min", "minimum"), ("max", "maximum")) if bound in part}
    return Field(part["title"], part["description"], kind, show, limits=limits)


def _probe_spaces(defaults: Mapping[str, Any]) -> str:
    spaces = (defaults.get("probes") or {}).get("spaces", SPACES)
    return "both" if len(spaces) > 1 else str(spaces[0])


_TRAINING = schema_fields(TrainSettings)
FIELDS: dict[str, Field] = {
    "name": Field("Name", "Optional.", "text", lambda _: "", keep=True),
    "methods": Field("Methods", "LoRA: s = α/r. rsLoRA: s = α/√r.", "methods", _value("methods")),
    "ranks": Field("Ranks r", "As in 1..64 (doubling) or 4, 16.", "text", _axis("ranks")),
    "alphas": Field(
        "α", "List, or a range as in 2^5..2^13. Not used by lora-alpha.", "text", _axis("alphas")
    ),
    "lrs": Field("Learning rates η", "As in 2e-4, or 1e-5..1e-3 x10.", "text", _axis("lrs")),
    "seeds": Field("Seeds", "At least 3, or differences may be noise.", "text", _axis("seeds")),
    **{name: _declared(name, part) for name, part in _TRAINING.items()},
    "rule_coefficient": Field("lora-alpha: C", "α = C·r^p", "text", lambda _: "", keep=True),
    "rule_exponent": Field("lora-alpha: p", "1/2 in the paper.", "text", lambda _: "", keep=True),
    "lr_ratio": Field("η_B / η_A", "LoRA+ uses 16; 1 otherwise.", "text", _text("lr_ratio"), keep=True),
    "alpha_schedule": Field(
        "α over time",
        "constant; ramp 0.1 in 100 (steps); hold update_norm 7; hold drift_ratio 0.01 (sgd).",
        "text",
        lambda d: show_schedule(d.get("alpha_schedule")),
        keep=True,
    ),
    "probes": Field(
        "Hessian probes at",
        "Of every run: init, end, or steps, as in init, 100, end. Empty for none.",
        "text",
        lambda d: ", ".join(map(str, (d.get("probes") or {}).get("at", []))),
        keep=True,
    ),
    "probe_kinds": Field(
        "Kinds of probe",
        "extremes, top, density, trace.",
        "text",
        lambda d: ", ".join((d.get("probes") or {}).get("kinds", ["extremes"])),
        keep=True,
    ),
    "probe_spaces": Field(
        "Spaces of probes", "Full weights cost more memory.", ("both", *SPACES), _probe_spaces, keep=True
    ),
    "tags": Field(
        "Tags", "Separated by commas.", "text", lambda d: ", ".join(d.get("tags") or []), keep=True
    ),
}
AXES = ("methods", "ranks", "alphas", "lrs", "seeds")
TRAINING = tuple(name for name, part in _TRAINING.items() if part.get("basic"))
MORE_TRAINING = tuple(name for name in _TRAINING if name not in TRAINING)
RULE = ("rule_coefficient", "rule_exponent", "lr_ratio", "alpha_schedule")
PROBES = ("probes", "probe_kinds", "probe_spaces")


def field_inputs(
    defaults: Mapping[str, Any], methods: list[MethodItem], given: Mapping[str, Any]
) -> list[Component]:
    """All fields, filled from ``given`` (as in a request), else from the workload's defaults."""
    source = {**defaults, **given}
    built = {name: _input(name, field, field.show(source), methods) for name, field in FIELDS.items()}
    return [
        _box("Grid", [built["methods"], _columns([built[name] for name in AXES[1:]], 2)]),
        _box("Training", [_columns([built[name] for name in TRAINING], 3)]),
        dmc.Accordion(
            dmc.AccordionItem(
                [
                    dmc.AccordionControl("More: training, rule, LoRA+, α over time, probes"),
                    dmc.AccordionPanel(
                        dmc.Stack(
                            [
                                _columns([built[name] for name in names], 3)
                                for names in (MORE_TRAINING, RULE, PROBES)
                            ]
                        )
                    ),
                ],
                value="more",
            ),
            variant="separated",
            mb="md",
        ),
        _box("Labels", [_columns([built["name"], built["tags"]], 2)]),
    ]


def option_inputs(schema: Mapping[str, Any], given: Mapping[str, Any]) -> Component:
    """A control for each workload option, from its JSON schema; of many the required and given come first."""
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    required = set(schema.get("required", []))
    controls = {
        name: _option(name, part, given.get(name, part.get("default")), required=name in required)
        for name, part in properties.items()
    }
    if not controls:
        return html.Div()
    first = [name for name in controls if name in required or name in given]
    if len(controls) <= MANY_OPTIONS or not first:
        return _columns(list(controls.values()), 2)
    rest = [control for name, control in controls.items() if name not in first]
    more = dmc.AccordionItem(
        [
            dmc.AccordionControl(f"More about model and data ({len(rest)})"),
            dmc.AccordionPanel(_columns(rest, 2)),
        ],
        value="more",
    )
    return html.Div(
        [
            _columns([controls[name] for name in first], 2),
            dmc.Accordion(more, variant="separated", mt="md"),
        ]
    )


def request_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the request that gave the resolved sweep ``spec``."""
    train: Mapping[str, Any] = spec["train"]
    return {**train, **{name: spec[name] for name in SWEEP_AXES if name in spec}}


def _input(name: str, field: Field, value: Any, methods: list[MethodItem]) -> Component:
    common = {"id": ids.field(name), "label": field.label, "description": field.help, "value": value}
    if field.kind == "methods":
        data = [{"value": method.name, "label": f"{method.name}: {method.summary}"} for method in methods]
        return dmc.MultiSelect(**common, data=data, searchable=True, mb="sm")
    if field.kind == "number":
        # What is out of bounds stays as typed: the plan says what is allowed.
        return dmc.NumberInput(
            **common, **field.limits, clampBehavior="none", allowDecimal=False, debounce=DEBOUNCE_MS
        )
    if isinstance(field.kind, tuple):
        return dmc.Select(**common, data=list(field.kind), allowDeselect=False)
    return dmc.TextInput(**common, debounce=DEBOUNCE_MS)


def _option(name: str, part: Mapping[str, Any], value: Any, *, required: bool) -> Component:
    common = {
        "id": ids.option(name),
        "label": name.replace("_", " "),
        "description": part.get("description", ""),
        "withAsterisk": required,
    }
    choices = part.get("enum")
    if choices:
        return dmc.Select(
            **common, value=str(value), data=[str(choice) for choice in choices], allowDeselect=False
        )
    if part.get("type") == "boolean":
        return dmc.Select(**common, value=str(value).lower(), data=["true", "false"], allowDeselect=False)
    if name.endswith("_template"):
        return dmc.Textarea(**common, value=value or "", debounce=DEBOUNCE_MS, autosize=True, minRows=2)
    return dmc.TextInput(**common, value=_shown(value), debounce=DEBOUNCE_MS)


def _shown(value: Any) -> str:
    """An option's value as the user would type it; a mapping as ``name=value`` with commas between."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={part}" for key, part in value.items())
    return "" if value is None else str(value)


def _box(title: str, children: list[Component]) -> Component:
    return dmc.Paper([dmc.Title(title, order=4, mb="xs"), *children], withBorder=True, p="md", mb="md")


def _columns(children: list[Component], count: int) -> Component:
    return dmc.SimpleGrid(children, cols={"base": 1, "sm": count}, spacing="md")
