"""Small nouns: workers, health, workloads, methods, presets, recommendation, login."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from backend.login import set_token_cookie, token_matches
from backend.routes.deps import BackendDep, Bound, ReadingDep
from backend.services import analysis, presets, status
from lora_alpha.wire.analysis import Advice
from lora_alpha.wire.base import Wire
from lora_alpha.wire.jobs import PresetItem
from lora_alpha.wire.sweeps import Health, MethodItem, Page, Worker, WorkloadItem

router = APIRouter(tags=["service"])


class Login(Wire):
    """Body of ``POST /login``."""

    token: Annotated[str, Field(max_length=1000)]


@router.get("/workers")
def workers(backend: BackendDep) -> Page[Worker]:
    """Workers and their last sign of life."""
    return Page(items=status.workers(backend.store, backend.settings, now=time.time()))


@router.get("/health")
def health(backend: BackendDep) -> Health:
    """Whether everything answers."""
    return status.health(backend.store, backend.settings, backend.celery)


@router.get("/workloads")
def workloads() -> Page[WorkloadItem]:
    """What can be trained."""
    return Page(items=status.workloads())


@router.get("/methods")
def methods() -> Page[MethodItem]:
    """How it can be trained."""
    return Page(items=status.methods())


@router.get("/presets")
def list_presets() -> Page[PresetItem]:
    """Sweeps that are ready to run."""
    return Page(items=presets.listing())


@router.get("/recommend")
def recommend(
    backend: BackendDep,
    sweep: Annotated[str, Query(max_length=100)],
    rank: Annotated[int, Query(ge=1, le=4096)],
    reading: ReadingDep,
    lr: Annotated[float | None, Query(gt=0, le=100, allow_inf_nan=False)] = None,
    max_forgetting: Bound | None = None,
) -> Advice:
    """Which α to use, and why."""
    return analysis.recommend(
        backend.store, sweep, rank=rank, lr=lr, reading=reading, max_forgetting=max_forgetting
    )


@router.post("/login", status_code=204)
def login(body: Login, backend: BackendDep, request: Request, response: Response) -> None:
    """Exchange the token for a cookie."""
    if not token_matches(body.token, backend.settings):
        raise HTTPException(401, "that is not this installation's token")
    set_token_cookie(response, backend.settings, secure=request.url.scheme == "https")
