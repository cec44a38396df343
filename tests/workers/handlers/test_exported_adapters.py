"""From a trained run through the API's export to PEFT: the loss is the one that the run reported."""

from __future__ import annotations

import shutil
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from backend.services import adapters, runs, steering, sweeps
from backend.store.jobs import claim_job
from backend.store.sweeps import find_sweep
from lora_alpha.curvature.points import tensors_at_start
from lora_alpha.errors import InvalidSpec
from lora_alpha.schemas import ExtendRequest, SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.workloads.registry import load_workload
from tests.tiny_encoders import write_bare_bert
from tests.tiny_folders import write_jsonl
from workers.context import JobContext
from workers.handlers.pack import run_pack
from workers.handlers.start import read_start

OPTIONS = {"width": 16}


def train(store, settings, **request):
    """The runs of a small sweep, trained in this process."""
    shared = {"workload": "mlp", "workload_options": OPTIONS, "seeds": [0], "batch_size": 16}
    body = SweepRequest(**{**shared, "steps": 20, "lrs": [3e-3], **request})
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


def test_an_exported_run_is_a_starting_point_for_every_alpha(store, settings, tmp_path):
    (first,) = train(store, settings, ranks=[2], alphas=[64])
    folder = unpack(store, settings, first.id, settings.home / "models" / "first")
    later = train(
        store, settings, ranks=[2], alphas=[16, 64, 512], lrs=[1e-9], steps=1, init_adapter=str(folder)
    )
    assert len(later) == 3
    for run in later:
        assert run.final_loss == pytest.approx(first.final_loss, rel=1e-4), run.name
    with pytest.raises(InvalidSpec, match="rank 2, runs need the same"):
        train(store, settings, ranks=[4], alphas=[64], init_adapter="first")
    with pytest.raises(InvalidSpec, match="rank 2, runs need the same"):
        steering.extend(store, settings, later[0].sweep_id, ExtendRequest(ranks=[4]), now=time.time())


def test_a_probe_before_training_sees_the_imported_start(store, settings):
    (first,) = train(store, settings, ranks=[2], alphas=[64])
    folder = unpack(store, settings, first.id, settings.home / "models" / "first")
    later_runs = train(store, settings, ranks=[2], alphas=[256], steps=1, init_adapter=str(folder))
    shutil.rmtree(folder)  # the sweep keeps its own copy
    with store.read() as session:
        spec = find_sweep(session, later_runs[0].sweep_id).spec
    given = read_start(spec["train"]["init_adapter"], settings=settings)
    workload = load_workload("mlp", OPTIONS)
    later = Configuration(method="lora", rank=2, alpha=256, lr=1e-3)
    tensors = tensors_at_start(workload, later, device=torch.device("cpu"), dtype=torch.float32, start=given)
    for path, parts in tensors.items():
        assert torch.equal(parts["A"], given[path]["A"])
        torch.testing.assert_close(4 * parts["B"], given[path]["B"])
        assert parts["B"].any()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("method", ["lora", "pissa", "dora"])
def test_a_classifiers_new_head_is_exported_with_it(store, settings, tmp_path, method):
    folder = write_bare_bert(settings.home / "models" / "bert")
    rows = [{"text": f"{'good' if n % 2 else 'bad'} {n}", "label": n % 2} for n in range(40)]
    options = {
        "model": str(folder),
        "data": str(write_jsonl(folder.parent / "texts.jsonl", rows)),
        "max_tokens": 32,
    }
    (run,) = train(
        store,
        settings,
        workload="hf-classify",
        workload_options=options,
        methods=[method],
        ranks=[2],
        alphas=[64],
        lrs=[1e-3],
        steps=8,
    )
    out = unpack(store, settings, run.id, tmp_path / "out")
    assert (
        f"AutoModelForSequenceClassification.from_pretrained({str(folder)!r}, num_labels=2)"
        in (out / "README.md").read_text()
    )
    torch.manual_seed(5)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    loaded = PeftModel.from_pretrained(base, out).eval()
    workload = load_workload("hf-classify", options)
    for _ in workload.prepare(settings.cache_dir):
        pass
    losses = []
    for index, label in enumerate(workload.data.held_out_labels):
        tokens = torch.from_numpy(workload.data.held_out.example(index)).long()[None]
        with torch.no_grad():
            logits = loaded(input_ids=tokens).logits
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([label]))))
    assert sum(losses) / len(losses) == pytest.approx(run.final_loss, rel=1e-5)
