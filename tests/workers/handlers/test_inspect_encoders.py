"""Inspections of classifiers and dual encoders: what is found, and what is wrong, before any run."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from backend.services import inspections
from backend.settings import Settings
from backend.store.engines import open_store
from backend.store.jobs import claim_job, fail_job, fence
from lora_alpha.errors import LoraAlphaError
from lora_alpha.schemas_jobs import InspectionRequest
from tests.tiny_encoders import write_bare_bert, write_clip, write_pictures
from tests.tiny_folders import write_jsonl
from workers.context import JobContext
from workers.handlers.inspect import run_inspection

ROWS = [{"text": f"text {n}", "label": ("no", "yes")[n % 2]} for n in range(40)]


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", workers=1, allowed_roots=str(tmp_path / "allowed"))


@pytest.fixture
def store(settings):
    store = open_store(settings.database)
    store.migrate()
    yield store
    store.close()


def inspect(store, settings, workload: str, options: dict[str, Any]):
    """Queue and run one inspection as a runner does; what the API then shows."""
    request = InspectionRequest(workload=workload, workload_options=options)
    created = inspections.create(store, settings, request, now=time.time())
    job = claim_job(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0)
    try:
        run_inspection(JobContext(store, settings, job, device="cpu", drain=threading.Event()))
    except LoraAlphaError as error:
        with store.write() as session:
            fence(session, job, now=time.time(), lease_s=15.0)
            fail_job(session, job, now=time.time(), error=str(error), log_tail="")
    return inspections.read(store, created.id)


def test_a_classifier_and_its_labels_are_described(store, settings, tmp_path):
    options = {
        "model": str(write_bare_bert(tmp_path / "allowed" / "bert")),
        "data": str(write_jsonl(tmp_path / "allowed" / "texts.jsonl", ROWS)),
    }
    shown = inspect(store, settings, "hf-classify", options)
    assert (shown.state, shown.error) == ("finished", None)
    assert shown.result["labels"] == ["no", "yes"]
    assert shown.result["num_targets"] == 2 * 6 + 1 + 1  # the layers, the pooler and the new classifier
    assert shown.result["memory"]["pack_bytes"] > shown.result["memory"]["base_bytes"] > 0
    json.dumps(shown.result)
    wrong = inspect(store, settings, "hf-classify", {**options, "label_column": "mood"})
    assert wrong.state == "failed"
    assert wrong.error == "workload_options.label_column: there is no column 'mood': there are text, label"


def test_a_dual_encoder_and_its_pictures_are_described(store, settings, tmp_path):
    options = {
        "model": str(write_clip(tmp_path / "allowed" / "clip")),
        "data": str(write_pictures(tmp_path / "allowed" / "data")),
        "max_tokens": 24,
    }
    shown = inspect(store, settings, "hf-clip", options)
    assert (shown.state, shown.error) == ("finished", None)
    assert shown.result["picture"] == "3×8×8"
    assert shown.result["memory"]["pack_bytes"] > shown.result["memory"]["base_bytes"] > 0
    json.dumps(shown.result)
    (tmp_path / "allowed" / "data" / "pictures" / "3.png").unlink()
    wrong = inspect(store, settings, "hf-clip", options)
    assert wrong.state == "failed"
    assert "there is no picture pictures/3.png beside it" in wrong.error
