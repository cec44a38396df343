"""An installation in a folder of the test's own, and what a runner does with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from backend.services import inspections, jobs
from backend.settings import Settings
from backend.store.engines import open_store
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.jobs import InspectionRequest
from workers.context import JobContext
from workers.handlers.inspect import run_inspection


@pytest.fixture
def settings(tmp_path):
    """Models and data may lie in ``allowed``, beside the installation's own folder."""
    return Settings(home=tmp_path / "home", workers=1, allowed_roots=str(tmp_path / "allowed"))


@pytest.fixture
def store(settings):
    store = open_store(settings.database)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def inspect(store, settings) -> Callable[..., Any]:
    """``inspect(options, workload)`` queues and runs one inspection; what the API then shows."""

    def run(options: dict[str, Any], workload: str = "hf-sft") -> Any:
        request = InspectionRequest(workload=workload, workload_options=options)
        created = inspections.create(store, settings, request, now=time.time())
        job = jobs.claim(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0)
        try:
            run_inspection(JobContext(store, settings, job, device="cpu", drain=threading.Event()))
        except LoraAlphaError as error:
            jobs.fail(store, job, now=time.time(), error=str(error), log_tail="")
        return inspections.read(store, created.id)

    return run
