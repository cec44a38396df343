"""Probe jobs from the request to the stored numbers, in one process: real store, real training."""

from __future__ import annotations

import csv
import io
import threading
import time

import pytest

from backend.export import Asked, csv_blocks
from backend.services import jobs, probes, runs, steering, sweeps
from backend.store.tables import ProbeRow, RunRow
from lora_alpha.errors import Conflict, InvalidSpec, ProbeError
from lora_alpha.request import SweepRequest
from lora_alpha.spec import ProbeSpec
from workers.context import JobContext, JobStopped
from workers.handlers.pack import run_pack
from workers.handlers.probe import run_probe_job


def claim(store, settings, *, drain=False):
    job = jobs.claim(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0)
    stop = threading.Event()
    if drain:
        stop.set()
    return JobContext(store, settings, job, device="cpu", drain=stop)


@pytest.fixture
def trained_run(store, settings):
    request = SweepRequest(
        workload="mlp",
        workload_options={"width": 16},
        ranks=[4],
        alphas=[64],
        lrs=[1e-3],
        seeds=[3],
        steps=30,
        batch_size=16,
    )
    sweep = sweeps.create(store, settings, request, key=None, now=time.time())
    run_pack(claim(store, settings))
    page = runs.listing(store, filters={"sweep": [sweep.id]}, sort="position", cursor=None, limit=1)
    assert page.items[0].state == "finished"
    return page.items[0].id


def probe(store, settings, **fields):
    """Queue and run one probe; what the API then shows."""
    created = probes.create(store, settings, ProbeSpec(dtype="float64", **fields), now=time.time())
    run_probe_job(claim(store, settings))
    return probes.read(store, created.id)


def test_extremes_of_a_run_at_its_end_and_start(store, settings, trained_run):
    end = probe(store, settings, run=trained_run)
    start = probe(store, settings, run=trained_run, step=0)
    assert end.state == start.state == "finished"
    assert (end.result["point"]["step"], start.result["point"]["step"]) == (30, 0)
    for shown in (end, start):
        assert shown.result["converged"]
        assert shown.result["lambda_min"] < 0 < shown.result["lambda_max"]
        assert shown.result["lambda_max_error"] <= 1e-3 * shown.result["lambda_max"]
        assert shown.result["estimate"]["num_parameters"] == shown.result["num_parameters"]
        assert shown.progress == 1.0
    # The same batch at both steps: training has lowered its loss.
    assert end.result["loss"] < start.result["loss"]
    assert end.result["point"] | {"step": 0} == start.result["point"]
    assert end.result["point"]["scale"] == 16


def test_a_runs_start_and_the_same_fresh_point_agree(store, settings, trained_run):
    start = probe(store, settings, run=trained_run, step=0, batch_size=16)
    fresh = probe(
        store,
        settings,
        workload="mlp",
        workload_options={"width": 16},
        rank=4,
        alpha=64,
        seed=3,
        batch_size=16,
    )
    assert fresh.result["lambda_max"] == pytest.approx(start.result["lambda_max"], rel=1e-12)


def test_full_coordinates_of_a_fresh_point_need_no_adapter(store, settings):
    options = {"workload": "mlp", "workload_options": {"width": 16}, "space": "full"}
    bare = probe(store, settings, **options)
    with_rank = probe(store, settings, rank=2, alpha=8, **options)
    assert bare.result["lambda_max"] == pytest.approx(with_rank.result["lambda_max"], rel=1e-9)


@pytest.mark.parametrize("kind", ["top", "density", "trace"])
def test_every_number_of_each_kind_is_exported(store, settings, kind, trained_run):
    shown = probe(store, settings, run=trained_run, kind=kind, top_k=3, num_vectors=3, iterations=8)
    text = b"".join(csv_blocks(store, "probes", Asked([shown.sweep_id]))).decode("utf-8-sig")
    exported = [row for row in csv.DictReader(io.StringIO(text)) if row["probe_id"] == shown.id]
    assert [(row["kind"], int(row["index"]), float(row["value"])) for row in exported] == [
        (row["kind"], row["index"], row["value"]) for row in shown.result["rows"]
    ]
    headline = {"top": "lambda_max", "density": "moment", "trace": "trace"}[kind]
    assert headline in {row["kind"] for row in shown.result["rows"]}


def test_cancel_is_honoured_between_products(store, settings):
    settings = settings.model_copy(update={"point_interval_s": 1e-6})
    spec = ProbeSpec(workload="mlp", rank=4, alpha=64, kind="trace", trace_error=0.0, max_products=10_000)
    created = probes.create(store, settings, spec, now=time.time())
    context = claim(store, settings)
    probes.cancel(store, created.id, now=time.time())
    started = time.monotonic()
    with pytest.raises(JobStopped, match="cancelled"):
        run_probe_job(context)
    assert time.monotonic() - started < 3
    assert probes.read(store, created.id).state == "cancelled"


def test_a_draining_worker_gives_the_probe_back(store, settings):
    spec = ProbeSpec(workload="mlp", workload_options={"width": 16}, rank=4, alpha=64)
    created = probes.create(store, settings, spec, now=time.time())
    with pytest.raises(JobStopped, match="released"):
        run_probe_job(claim(store, settings, drain=True))
    assert probes.read(store, created.id).state == "queued"
    run_probe_job(claim(store, settings))
    assert probes.read(store, created.id).state == "finished"


def test_a_run_whose_adapter_is_gone_says_so(store, settings, trained_run):
    with store.read() as session:
        path = settings.home / session.get(RunRow, trained_run).adapter
    path.unlink()
    with pytest.raises(ProbeError, match="is gone: train the run again"):
        probe(store, settings, run=trained_run)


def test_a_number_that_is_not_finite_is_stored_as_null(store, settings):
    shown = probe(
        store,
        settings,
        workload="mlp",
        workload_options={"width": 16},
        rank=2,
        alpha=8,
        kind="density",
        num_vectors=2,
        iterations=5,
    )
    with store.read() as session:
        assert session.get(ProbeRow, shown.id).result["rows"][0]["error"] is None


def test_probes_of_a_sweep_are_queued_as_its_runs_finish(store, settings):
    request = SweepRequest(
        workload="mlp",
        workload_options={"width": 16},
        methods=["lora", "dora"],
        ranks=[2],
        alphas=[8],
        lrs=[1e-3],
        seeds=[0],
        steps=10,
        batch_size=16,
        probes={"at": ["init", 4, "end"], "kinds": ["extremes"], "spaces": ["lora", "full"]},
    )
    sweep = sweeps.create(store, settings, request, key=None, now=time.time())
    done = {"pack": 0, "probe": 0}
    while (
        job := jobs.claim(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0)
    ) is not None:
        context = JobContext(store, settings, job, device="cpu", drain=threading.Event())
        {"pack": run_pack, "probe": run_probe_job}[job.kind](context)
        done[job.kind] += 1
    assert done["probe"] == 9  # LoRA at three steps in two spaces, DoRA at three steps in full coordinates
    with store.read() as session:
        rows = session.query(ProbeRow).filter_by(sweep_id=sweep.id).all()
        assert {row.state for row in rows} == {"finished"}
        assert sorted((row.step, row.space) for row in rows).count((10, "full")) == 2
        losses = {row.step: row.result["loss"] for row in rows if row.space == "lora"}
        assert losses[0] > losses[4] > losses[10]
    with pytest.raises(Conflict, match="at steps 0, 4 and 10 only: step 7"):
        probes.create(store, settings, ProbeSpec(run=rows[0].run_id, step=7), now=time.time())
    assert len(list((settings.home / "adapters").iterdir())) == 4
    steering.remove(store, settings, sweep.id)
    assert list((settings.home / "adapters").iterdir()) == []


def test_the_end_of_a_diverged_run_fails_with_its_reason(store, settings):
    request = SweepRequest(
        workload="mlp",
        workload_options={"width": 16},
        ranks=[4],
        alphas=[4096],
        lrs=[50.0],
        seeds=[0],
        steps=20,
        optimizer="sgd",
        probes={"at": ["end"], "kinds": ["extremes"], "spaces": ["lora"]},
    )
    sweep = sweeps.create(store, settings, request, key=None, now=time.time())
    run_pack(claim(store, settings))
    page = probes.listing(
        store, sweep=sweep.id, run=None, state=None, kind=None, space=None, cursor=None, limit=10
    )
    assert [probe.state for probe in page.items] == ["failed"]
    assert "diverged at step" in page.items[0].error


def test_a_probe_planned_after_the_last_step_is_refused(store, settings):
    request = SweepRequest(workload="mlp", steps=10, probes={"at": [11]})
    with pytest.raises(InvalidSpec, match=r"probes.at: got 11: must be at most the 10 steps"):
        sweeps.create(store, settings, request, key=None, now=time.time())
