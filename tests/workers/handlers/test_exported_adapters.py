"""From a trained run through the API's export to PEFT: the loss is the one that the run reported."""

from __future__ import annotations

import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from backend.services import adapters, runs, sweeps
from backend.settings import Settings
from backend.store.engines import open_store
from backend.store.jobs import claim_job
from lora_alpha.schemas import SweepRequest
from lora_alpha.workloads.registry import load_workload
from workers.context import JobContext
from workers.handlers.pack import run_pack

OPTIONS = {"width": 16}


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", workers=1)


@pytest.fixture
def store(settings):
    store = open_store(settings.database)
    store.migrate()
    yield store
    store.close()


def train(store, settings, **request):
    """The runs of a small sweep, trained in this process."""
    shared = {"workload": "mlp", "workload_options": OPTIONS, "lrs": [3e-3], "seeds": [0], "batch_size": 16}
    body = SweepRequest(**shared, **{"steps": 20, **request})
    sweep = sweeps.create(store, settings, body, key=None, now=time.time())
    while job := claim_job(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0):
        run_pack(JobContext(store, settings, job, device="cpu", drain=threading.Event()))
    return runs.listing(store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=50).items


def unpack(store, settings, run_id: str, folder: Path) -> Path:
    with adapters.export(store, settings, run_id) as file, zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def peft_losses(folder: Path) -> dict[str, float]:
    workload = load_workload("mlp", OPTIONS)
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    loaded = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        return {name: float(value) for name, value in workload.evaluate(loaded, num_configs=1).items()}


def test_peft_measures_the_loss_that_the_run_reported(store, settings, tmp_path):
    methods = ["lora", "rslora", "lora-alpha", "lora+", "lora-fa", "pissa", "dora"]
    trained = train(store, settings, methods=methods, ranks=[2], alphas=[64])
    assert [run.method for run in trained] == methods
    for run in trained:
        losses = peft_losses(unpack(store, settings, run.id, tmp_path / run.id))
        assert losses["eval_loss"] == pytest.approx(run.final_loss, rel=1e-5)
        assert losses["forgetting_loss"] == pytest.approx(run.forgetting, rel=1e-4)
        assert abs(run.final_loss - 1) > 1e-3, "a run that has not moved would prove nothing"


def test_the_scale_at_the_end_of_a_ramp_is_the_one_exported(store, settings, tmp_path):
    ramp = {"kind": "ramp", "start": 0.1, "ramp_steps": 40}
    (run,) = train(store, settings, ranks=[2], alphas=[64], alpha_schedule=ramp)
    losses = peft_losses(unpack(store, settings, run.id, tmp_path / "out"))
    assert losses["eval_loss"] == pytest.approx(run.final_loss, rel=1e-5)
