"""The service: ``create_app`` puts routes, errors, security and the reconciler together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

from fastapi import FastAPI
from fastapi.routing import APIRoute

from backend import problems
from backend.login import add_login
from backend.queue import create_celery
from backend.routes import ROUTERS
from backend.routes.deps import Backend
from backend.security import Guard
from backend.services.reconciler import keep_reconciling
from backend.settings import Settings
from backend.store.engines import Store, open_store

# A long ingested history fits; nobody fills the memory.
MAX_BODY_BYTES = 64 * 2**20


def create_app(settings: Settings, *, store: Store | None = None) -> FastAPI:
    """The root application: ``/api`` is mounted; a dashboard may be added to the root afterwards.

    It must be afterwards: a dashboard answers every path that nobody before it did.

    Nothing connects before the lifespan begins: it migrates the database and starts the reconciler.

    Args:
        settings: Where database, broker and files are.
        store: An open store; one on ``settings.database`` unless given.
    """
    backend = Backend(store or open_store(settings.database), settings, create_celery(settings))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        settings.files.prepare()
        await asyncio.to_thread(backend.store.migrate)
        task = asyncio.create_task(keep_reconciling(backend.store, settings, backend.celery))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        backend.store.close()

    root = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    root.mount("/api", create_api(backend))
    add_login(root, settings)
    problems.install(root)
    root.add_middleware(cast(Any, Guard), settings=settings)
    return root


def create_api(backend: Backend) -> FastAPI:
    """The API alone, as mounted under ``/api``."""
    api = FastAPI(
        title="lora_alpha",
        version=version("lora-alpha"),
        description="Sweeps, runs, laws and Hessian probes of LoRA fine-tuning.",
        responses=problems.RESPONSES,
        max_body_size=MAX_BODY_BYTES,
        docs_url=None,  # its page would come from a CDN
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    api.state.backend = backend
    problems.install(api)
    for router in ROUTERS:
        api.include_router(router)
    return api


def _operation_id(route: APIRoute) -> str:
    noun = str(route.tags[0]) if route.tags else "service"
    return f"{noun}_{route.name}"
