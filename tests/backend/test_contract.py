"""Whatever the OpenAPI document allows is answered as it says, and whatever it forbids is refused."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from backend.app import create_app
from backend.services import ingest, sweeps
from backend.settings import Settings
from backend.store.engines import Store
from lora_alpha.request import SweepRequest
from lora_alpha.wire.jobs import IngestPoints, IngestRun

NOW = 1_800_000_000.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 12


# The operations must be known when tests are collected; nothing connects before the first request.
HOME = Path(tempfile.mkdtemp(prefix="lora-alpha-contract-"))
INSTALLATION = Settings(home=HOME, token=None, workers=1)
STORE = Store(INSTALLATION.database)
schema = schemathesis.openapi.from_asgi("/api/openapi.json", create_app(INSTALLATION, store=STORE))
# The event stream never ends: test_events.py reads from it.
schema = schema.exclude(path="/events")


@pytest.fixture(scope="module")
def known(empty_database: Path) -> Iterator[dict[str, str]]:
    """Ids of things that exist."""
    shutil.copy(empty_database, HOME / "lora_alpha.db")
    request = SweepRequest(workload="mlp", ranks=[1, 4], alphas=[8, 64], seeds=[0], steps=20)
    sweep = sweeps.create(STORE, INSTALLATION, request, key=None, now=NOW)
    run = ingest.add_run(STORE, IngestRun(lr=1e-4, rank=4, alpha=8, steps=10), now=NOW)
    series = {"metric": "eval_loss", "steps": [0, 5, 10], "values": [2.0, None, 1.0]}
    points = IngestPoints.model_validate({"series": [series], "state": "finished"})
    ingest.add_points(STORE, run.id, points, now=NOW)
    yield {"sweep_id": sweep.id, "run_id": run.id}
    STORE.close()
    shutil.rmtree(HOME)


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case: schemathesis.Case, known: dict[str, str]) -> None:
    for name in case.path_parameters or {}:
        # Half of the time something that exists; what is deleted would be missed by the rest.
        if name in known and sum(map(ord, case.id)) % 2 and case.method != "DELETE":
            case.path_parameters[name] = known[name]
    response = case.call()
    case.validate_response(response, checks=CHECKS)
