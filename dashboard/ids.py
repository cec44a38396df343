"""Ids of the components that several files name; a tab's own are in its file."""

from __future__ import annotations

from typing import Any

URL = "url"
THEME = "theme"
PROVIDER = "provider"
THEME_BUTTON = "theme-button"
CONTENT = "content"
SERVICE_STATE = "service-state"
SERVICE_TICK = "service-tick"
NOTICE = "notice"

SWEEPS_TICK = "sweeps-tick"
SWEEPS_TABLE = "sweeps-table"
SWEEPS_STATE = "sweeps-state"
SWEEPS_SEARCH = "sweeps-search"
SWEEPS_VIEWS = "sweeps-views"

STEER_RESULT = "steer-result"

FORM_WORKLOAD = "form-workload"
FORM_OPTIONS = "form-options"
FORM_ABOUT = "form-about"
FORM_PLAN = "form-plan"
FORM_SUBMIT = "form-submit"
FORM_RESULT = "form-result"
FORM_CHECKED = "form-checked"

PRESETS = "presets"
PRESET_RESULT = "preset-result"
INSPECT = "inspect"
INSPECTION = "inspection"
INSPECTION_PANEL = "inspection-panel"
INSPECTION_JOB = "inspection-job"
INSPECTION_TICK = "inspection-tick"

WORKERS_TICK = "workers-tick"
WORKERS_TABLE = "workers-table"

LAWS_SWEEPS = "laws-sweeps"
LAWS_FIGURE = "laws-figure"
LAWS_TABLE = "laws-table"

PROBE_POINT = "probe-point"
PROBE_SUBMIT = "probe-submit"
PROBE_RESULT = "probe-result"
PROBE_SUBMITTED = "probe-submitted"
PROBE_LIST = "probe-list"


def control(page: str, name: Any) -> dict[str, Any]:
    """A control of a page of tabs whose value belongs to the address; ``ALL`` for every one."""
    return {"type": "control", "page": page, "name": name}


def view(page: str) -> str:
    """What the controls of a page of tabs hold."""
    return f"{page}-view"


def defaults(page: str) -> str:
    """What they hold where the address is silent."""
    return f"{page}-defaults"


def pulse(page: str) -> str:
    """What changes when there is something new to draw."""
    return f"{page}-pulse"


def tick(page: str) -> str:
    """The clock of a page of tabs."""
    return f"{page}-tick"


def head(page: str, place: int) -> str:
    """One part of what stands above the tabs."""
    return f"{page}-head-{place}"


def body(page: str) -> str:
    """Head and tabs, which go when another sweep is chosen."""
    return f"{page}-body"


def sweep_of(page: str) -> str:
    """The choice of the sweep that a page is about."""
    return f"{page}-sweep"


def drawn(page: str, tab: str) -> str:
    """What was drawn in a tab (or in the head), to see what has changed since."""
    return f"{page}-{tab}-drawn"


def probe(name: str) -> dict[str, str]:
    """A field of the probe form."""
    return {"type": "probe", "name": name}


def cancel_probe(probe_id: str) -> dict[str, str]:
    """The button that cancels a probe."""
    return {"type": "cancel-probe", "probe": probe_id}


def field(name: str) -> dict[str, str]:
    """A field of the new-sweep form."""
    return {"type": "field", "name": name}


def option(name: str) -> dict[str, str]:
    """A workload option of the new-sweep form."""
    return {"type": "option", "name": name}


def action(verb: str) -> dict[str, str]:
    """A button that steers the sweep."""
    return {"type": "action", "verb": verb}


def preset(name: str) -> dict[str, str]:
    """The button that runs a preset."""
    return {"type": "preset", "name": name}


def forget_view(view_id: str) -> dict[str, str]:
    """The button that forgets a saved view."""
    return {"type": "forget-view", "name": view_id}
