"""The workload of ``docs/your-workload.md`` through the service: sweep, pack, export, inspection, probe."""

from __future__ import annotations

import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from backend.services import adapters, jobs, probes, runs, sweeps
from backend.store.jobs import enqueue
from lora_alpha.catalog import WORKLOADS
from lora_alpha.request import SweepRequest
from lora_alpha.spec import ProbeSpec
from lora_alpha.workloads.registry import load_workload
from tests.installed_packages import write_page
from workers.context import JobContext
from workers.handlers.pack import run_pack
from workers.handlers.pretrain import run_pretrain
from workers.handlers.probe import run_probe_job

PAGE = Path(__file__).parents[3] / "docs" / "your-workload.md"
OPTIONS = {"features": 8}
REQUEST = {
    "workload": "linear-shift",
    "workload_options": OPTIONS,
    "ranks": [1, 4],
    "alphas": [16],
    "lrs": [1e-2],
    "seeds": [0],
    "steps": 20,
    "batch_size": 12,
}


@pytest.fixture(autouse=True)
def installed(packages):
    write_page(packages, PAGE)
    WORKLOADS.refresh()
    yield packages
    WORKLOADS.refresh()


@pytest.fixture
def trained(store, settings):
    sweep = sweeps.create(store, settings, SweepRequest(**REQUEST), key=None, now=time.time())
    while context := claim(store, settings):
        run_pack(context)
    return runs.listing(store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=9).items


def claim(store, settings):
    job = jobs.claim(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0)
    return job and JobContext(store, settings, job, device="cpu", drain=threading.Event())


def test_a_sweep_of_it_is_trained_and_exported_to_peft(store, settings, trained, tmp_path):
    assert [(run.rank, run.state) for run in trained] == [(1, "finished"), (4, "finished")]
    workload = load_workload("linear-shift", OPTIONS)
    for run in trained:
        folder = tmp_path / run.id
        with adapters.export(store, settings, run.id) as file, zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
        base = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
        untrained = float(workload.evaluate(base, num_configs=1)["eval_loss"])
        with torch.no_grad():
            losses = workload.evaluate(PeftModel.from_pretrained(base, folder), num_configs=1)
        assert float(losses["eval_loss"]) == pytest.approx(run.final_loss, rel=1e-5)
        assert float(losses["forgetting_loss"]) == pytest.approx(run.forgetting, rel=1e-4)
        assert run.final_loss < 0.99 * untrained


def test_it_is_prepared_by_a_job_of_its_own(store, settings):
    spec = {"workload": "linear-shift", "workload_options": OPTIONS}
    with store.write() as session:
        enqueue(session, kind="pretrain", spec=spec, now=time.time(), max_attempts=1)
    run_pretrain(claim(store, settings))
    assert claim(store, settings) is None


def test_an_inspection_counts_its_parameters(inspect):
    shown = inspect(OPTIONS, "linear-shift")
    assert (shown.state, shown.error) == ("finished", None)
    found = shown.result
    assert (found["parameters"], found["targets"], found["warnings"]) == (64, ["0"], [])
    assert found["adapter_parameters_per_rank"] == 16


def test_a_probe_of_its_run_measures_the_curvature(store, settings, trained):
    for fields in ({"run": trained[0].id}, {"workload": "linear-shift", "workload_options": OPTIONS}):
        spec = ProbeSpec(kind="extremes", space="full", dtype="float64", **fields)
        created = probes.create(store, settings, spec, now=time.time())
        run_probe_job(claim(store, settings))
        shown = probes.read(store, created.id)
        assert shown.state == "finished"
        assert shown.result["lambda_max"] > 0
        # A squared error is convex in the weights of one linear layer.
        assert shown.result["lambda_min"] > -1e-3 * shown.result["lambda_max"]
