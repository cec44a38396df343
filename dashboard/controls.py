"""Controls of a tab, each with its default: what it stands for in the address, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from dashboard.components.parts import select
from dashboard.figures.style import number
from lora_alpha.wire.analysis import Cell
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Curve, Sweep


@dataclass(frozen=True)
class Subject:
    """What a page is about while it is laid out: ``sweep`` is None at fresh adapters."""

    client: Client
    sweep: Sweep | None

    @property
    def spec(self) -> Mapping[str, Any]:
        """The resolved sweep; empty without one."""
        return self.sweep.spec if self.sweep is not None else {}

    @cached_property
    def cells(self) -> list[Cell]:
        """Its cells, asked for once."""
        return self.client.cells(self.sweep.id).cells if self.sweep is not None else []

    @cached_property
    def cell_curves(self) -> list[Curve]:
        """A curve a cell, little more than its ends: for names and keys, asked for once."""
        if self.sweep is None:
            return []
        return self.client.curves(self.sweep.id, metric="eval_loss", points=3, group_by="cell").curves


Options = Sequence[Any] | Callable[[Subject], Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control of a tab.

    Args:
        name: In the page's address.
        default: Its value where the address is silent; a function of the subject where it depends on it.
        show: (component id, value, subject) → component.
        of_sweep: Its values belong to the sweep: another sweep resets it.
        was: A former name that old addresses still have.
        renamed: Former values → today's, for the same reason.
        knows: Whether a value (each, of several) can stand in the address at all.
    """

    name: str
    default: Any
    show: Callable[[Any, Any, Subject], Component]
    of_sweep: bool = False
    was: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    knows: Callable[[Any], bool] = lambda _: True

    def read(self, given: Any, default: Any) -> Any:
        """What the address's value stands for: the default where that is nothing."""
        if isinstance(given, list):
            return [value for value in given if self.knows(value)]
        value = self.renamed.get(given, given)
        return value if self.knows(value) else default

    def default_at(self, subject: Subject) -> Any:
        """The default on this subject."""
        return self.default(subject) if callable(self.default) else self.default


def choice(
    name: str,
    label: str,
    default: Any,
    options: Options,
    *,
    of_sweep: bool = False,
    grows: bool = False,
    renamed: Mapping[str, str] | None = None,
    **more: Any,
) -> Control:
    """One of several values: one that is not among them counts as the default.

    With ``grows`` the data bring more of them, so that the address may know others already.
    What is not named here goes to the component.
    """

    def show(component_id: Any, value: Any, subject: Subject) -> Component:
        data = _options(options, subject)
        known = [item["value"] if isinstance(item, Mapping) else item for item in data]
        if grows and value and value not in known:
            data = [*data, value]
        shown = value if grows or value in known else (known[0] if known else None)
        return select(component_id, label, shown, data, disabled=not data, **more)

    return Control(name=name, default=default, show=show, of_sweep=of_sweep, renamed=renamed or {})


def switch(name: str, label: str, default: Any, options: Sequence[Any], *, was: str = "") -> Control:
    """Two or three exclusive values side by side."""

    def show(component_id: Any, value: Any, _: Subject) -> Component:
        control = dmc.SegmentedControl(id=component_id, value=value, data=list(options), size="xs")
        return dmc.Stack([dmc.Text(label, size="xs", fw=500), control], gap=2)

    known = [option["value"] if isinstance(option, Mapping) else option for option in options]
    return Control(name=name, default=default, show=show, was=was, knows=known.__contains__)


def typed(name: str, label: str, default: Any = "", *, width: int | None = None) -> Control:
    """A text that counts after a pause."""

    def show(component_id: Any, value: Any, _: Subject) -> Component:
        size = {"w": width} if width else {}
        return dmc.TextInput(id=component_id, label=label, value=value, size="xs", debounce=400, **size)

    return Control(name=name, default=default, show=show)


def several(
    name: str,
    label: str,
    options: Options | None,
    *,
    nothing: str = "all",
    width: int = 320,
    of_type: Callable[[str], Any] = str,
) -> Control:
    """Any number of values; what none means is ``nothing``.

    Hidden where there is nothing to choose; without ``options`` the data bring them. Texts of which
    ``of_type`` makes nothing are ignored.
    """

    def knows(text: Any) -> bool:
        try:
            of_type(text)
        except ValueError:
            return False
        return True

    def show(component_id: Any, value: Sequence[str], subject: Subject) -> Component:
        data = _options(options or (), subject)
        control = dmc.MultiSelect(
            id=component_id,
            label=label,
            value=list(value),
            data=data,
            placeholder=nothing if not value else "",
            clearable=True,
            size="xs",
            miw=150,
            maw=width,
        )
        return html.Div(control, style={"display": "none"} if options is not None and len(data) < 2 else {})

    return Control(name=name, default=[], show=show, of_sweep=True, knows=knows)


def axis_filters() -> tuple[Control, ...]:
    """A choice of values for each axis of the sweep, explicit cells included."""
    axes: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
        ("methods", "method", "Methods", str),
        ("ranks", "rank", "Ranks", int),
        ("alphas", "alpha", "α", float),
        ("lrs", "lr", "η", float),
    )
    return tuple(
        several(name, label, axis_values(name, key), of_type=of_type) for name, key, label, of_type in axes
    )


def run_filters(view: Mapping[str, Any]) -> dict[str, Any]:
    """What ``axis_filters`` chose, as the API wants it."""
    return {
        "method": view["methods"] or None,
        "rank": [int(rank) for rank in view["ranks"]] or None,
        "alpha": [float(alpha) for alpha in view["alphas"]] or None,
        "lr": [float(lr) for lr in view["lrs"]] or None,
    }


def axis_values(name: str, key: str) -> Callable[[Subject], list[dict[str, str]]]:
    """The values of one axis of the sweep, explicit cells included; ``key`` is the axis's name in a cell."""

    def values(subject: Subject) -> list[dict[str, str]]:
        spec = subject.spec
        # A sweep of explicit cells alone still carries the workload's axes, which it does not train.
        grid = spec.get(name, []) if spec.get("methods") else []
        cells = [cell[key] for cell in spec.get("cells", []) if cell.get(key) is not None]
        found = sorted({*grid, *cells})
        return [
            {"value": _text(value), "label": value if isinstance(value, str) else number(value)}
            for value in found
        ]

    return values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"


def _options(options: Options, subject: Subject) -> list[Any]:
    return list(options(subject) if callable(options) else options)
