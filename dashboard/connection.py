"""The one HTTP client of this process: callbacks share it, the application's end closes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from lora_alpha.wire.client import Client


def close_at_shutdown(root: FastAPI, client: Client) -> None:
    """Close ``client`` once ``root`` has been shut down, after whatever else its lifespan does."""
    before = root.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        try:
            async with before(app) as state:
                yield state
        finally:
            client.close()

    root.router.lifespan_context = lifespan
