"""What every route gets: the application's state, and parameters that several routes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from celery import Celery
from fastapi import Depends, Query, Request
from pydantic import BeforeValidator

from backend.queue import ring
from backend.services.outcomes import Reading
from backend.settings import Settings
from backend.store.engines import Store
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.metrics import Goal
from lora_alpha.spec import MetricName, Objective, RunState, SweepState

Finite = Annotated[float, Query(allow_inf_nan=False)]
Whole = Annotated[int, Query(ge=0, lt=2**31)]


def _split(given: Any) -> Any:
    """``?rank=1,4&rank=16`` and ``?rank=`` alike: items between commas, nothing for an empty one."""
    if not isinstance(given, list):
        return given
    return [part for item in given for part in (item.split(",") if isinstance(item, str) else [item]) if part]


Ids = Annotated[
    list[str] | None, BeforeValidator(_split), Query(description="One or several, separated by commas.")
]


@dataclass(frozen=True)
class Backend:
    """Store, settings and broker of this application."""

    store: Store
    settings: Settings
    celery: Celery

    def ring(self, times: int = 1) -> None:
        """Wake up to ``times`` workers."""
        for _ in range(times):
            if not ring(self.celery, self.settings):
                return


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


def _reading(
    objective: Annotated[Objective, Query(description="At the end, or the best on the way.")] = "final",
    at_step: Annotated[int | None, Query(ge=0, le=2**53, description="Read every run at this step.")] = None,
    metric: Annotated[
        MetricName | None,
        Query(description="A recorded metric; the sweep's own unless given."),
    ] = None,
    goal: Annotated[Goal | None, Query(description="Which way is better; else by its name.")] = None,
    steps_to: Annotated[
        float | None,
        Query(allow_inf_nan=False, description="In place of the metric the steps until it is this good."),
    ] = None,
) -> Reading:
    if at_step is not None and steps_to is not None:
        raise InvalidSpec([FieldProblem("steps_to", "got at_step, too: give one of them")])
    return Reading(objective=objective, at_step=at_step, metric=metric, goal=goal, steps_to=steps_to)


def _run_filters(
    sweep: Ids = None,
    state: Annotated[list[RunState] | None, BeforeValidator(_split), Query()] = None,
    method: Annotated[list[str] | None, BeforeValidator(_split), Query()] = None,
    rank: Annotated[list[Whole] | None, BeforeValidator(_split), Query()] = None,
    alpha: Annotated[list[Finite] | None, BeforeValidator(_split), Query()] = None,
    lr: Annotated[list[Finite] | None, BeforeValidator(_split), Query()] = None,
    seed: Annotated[list[Whole] | None, BeforeValidator(_split), Query()] = None,
    diverged: bool | None = None,
    run: Ids = None,
) -> dict[str, Any]:
    return {
        "sweep": sweep,
        "state": state,
        "method": method,
        "rank": rank,
        "alpha": alpha,
        "lr": lr,
        "seed": seed,
        "diverged": diverged,
        "run": run,
    }


BackendDep = Annotated[Backend, Depends(_backend)]
ReadingDep = Annotated[Reading, Depends(_reading)]
RunFilters = Annotated[dict[str, Any], Depends(_run_filters)]
SweepStates = Annotated[list[SweepState] | None, BeforeValidator(_split), Query()]
Bound = Annotated[float, Query(allow_inf_nan=False, description="Largest mean forgetting that is allowed.")]
Cursor = Annotated[
    str | None,
    Query(description="The 'next' of the page before.", max_length=500),
]
Limit = Annotated[int, Query(ge=1, le=1000)]
