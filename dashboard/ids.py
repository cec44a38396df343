"""Component ids."""

from __future__ import annotations

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

SWEEP_ID = "sweep-id"
SWEEP_TICK = "sweep-tick"
SWEEP_HEADER = "sweep-header"
SWEEP_PULSE = "sweep-pulse"
SWEEP_TABS = "sweep-tabs"
SWEEP_VIEW = "sweep-view"
CONVERGENCE = "convergence-figure"
CONVERGENCE_TABLE = "convergence-table"
MAP = "map-figure"
SLICES = "slices-figure"
MAP_TABLE = "map-table"
LAW = "law-figure"
LAW_TEXT = "law-text"
LAW_TABLE = "law-table"
RUNS_GRID = "runs-grid"
RUN_LOG = "run-log"
RUN_DRAWER = "run-drawer"
ADVICE = "advice"
ADVICE_RANK = "advice-rank"
ADVICE_LR = "advice-lr"
ALPHA_VS_LR = "alpha-vs-lr"
COLLAPSE = "collapse-figure"
EXTEND = "extend-button"
EXTEND_LRS = "extend-lrs-button"

NOTES_NAME = "notes-name"
NOTES_TAGS = "notes-tags"
NOTES_TEXT = "notes-text"
NOTES_SAVE = "notes-save"
NOTES_RESULT = "notes-result"
VIEW_NAME = "view-name"
VIEW_SAVE = "view-save"
VIEW_RESULT = "view-result"
DELETE_SWEEP = "delete-sweep"
DELETE_RESULT = "delete-result"

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

DYNAMICS_SWEEP = "dynamics-sweep"
DYNAMICS_VIEW = "dynamics-view"
DYNAMICS_PULSE = "dynamics-pulse"
DYNAMICS_TICK = "dynamics-tick"
DYNAMICS_STATE = "dynamics-state"
DYNAMICS_BODY = "dynamics-body"
DYNAMICS_STEPS = "dynamics-steps"
DYNAMICS_ROUTES = "dynamics-routes"
DYNAMICS_LAYERS = "dynamics-layers"
DYNAMICS_SCHEDULES = "dynamics-schedules"

CURVATURE_SWEEP = "curvature-sweep"
CURVATURE_VIEW = "curvature-view"
CURVATURE_PULSE = "curvature-pulse"
CURVATURE_TICK = "curvature-tick"
CURVATURE_STATE = "curvature-state"
CURVATURE_BODY = "curvature-body"
EXTREMES = "extremes-figure"
SUPPRESSION = "suppression-figure"
DENSITY = "density-figure"
RATES = "rates-figure"
PROBE_POINT = "probe-point"
PROBE_SUBMIT = "probe-submit"
PROBE_RESULT = "probe-result"
PROBE_SUBMITTED = "probe-submitted"
PROBE_LIST = "probe-list"


def view(name: str) -> dict[str, str]:
    """A control whose value belongs to the page's address."""
    return {"type": "view", "name": name}


def dynamics(name: str) -> dict[str, str]:
    """A control of the dynamics page whose value belongs to its address."""
    return {"type": "dynamics", "name": name}


def curvature(name: str) -> dict[str, str]:
    """A control of the curvature page whose value belongs to its address."""
    return {"type": "curvature", "name": name}


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
