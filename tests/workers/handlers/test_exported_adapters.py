"""From a trained run through the API's export to PEFT: the loss is the one that the run reported."""

from __future__ import annotations

import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel, TaskType
from transformers import AutoModelForSequenceClassification, RobertaConfig, RobertaModel

from backend.services import adapters, runs, steering, sweeps
from backend.services.jobs import claim
from backend.store.sweeps import find_run, find_sweep
from lora_alpha.catalog import WORKLOADS, workload_info
from lora_alpha.curvature.points import tensors_at_start
from lora_alpha.errors import InvalidSpec
from lora_alpha.peft_format.export import read_run_adapter
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.sweeps import ExtendRequest
from lora_alpha.workloads.registry import load_workload
from tests.tiny_encoders import write_bare_bert, write_clip, write_pictures
from tests.tiny_folders import NUM_TOKENS, byte_tokenizer, write_jsonl, write_model
from workers.context import JobContext
from workers.handlers.init_adapter import read_init_adapter
from workers.handlers.pack import run_pack

OPTIONS = {"width": 16}


def train(store, settings, **request):
    """The runs of a small sweep, trained in this process."""
    shared = {"workload": "mlp", "workload_options": OPTIONS, "seeds": [0], "batch_size": 16}
    body = SweepRequest(**{**shared, "steps": 20, "lrs": [3e-3], **request})
    sweep = sweeps.create(store, settings, body, key=None, now=time.time())
    while job := claim(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0):
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
    given = read_init_adapter(spec["train"]["init_adapter"], settings=settings)
    workload = load_workload("mlp", OPTIONS)
    later = Configuration(method="lora", rank=2, alpha=256, lr=1e-3)
    tensors = tensors_at_start(
        workload, later, device=torch.device("cpu"), dtype=torch.float32, init_adapter=given
    )
    for path, parts in tensors.items():
        assert torch.equal(parts["A"], given[path]["A"])
        torch.testing.assert_close(4 * parts["B"], given[path]["B"])
        assert parts["B"].any()


def texts(count: int = 40) -> list[dict[str, Any]]:
    return [{"text": f"{('good', 'bad', 'fair')[n % 3]} {n}", "label": n % 3} for n in range(count)]


def write_bare_roberta(folder: Path) -> Path:
    """A tiny pretrained RoBERTa: its classifier would be two layers, and there is none."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = RobertaConfig(
        vocab_size=NUM_TOKENS,
        max_position_embeddings=66,
        pad_token_id=2,
        bos_token_id=0,
        eos_token_id=1,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


ROWS = {"text": texts, "sums": lambda: [{"question": f"{a}+1", "answer": f"{a + 1}"} for a in range(40)]}
# workload, model, data, what is asked beside, layers that the export has as a whole
EXPORTS: dict[str, tuple[str, Callable[[Path], Path], str, dict[str, Any], list[str] | None]] = {
    "causal": ("hf-sft", write_model, "sums", {}, None),
    "reward": (
        "hf-rl",
        write_model,
        "sums",
        {"max_new_tokens": 4, "eval_samples": 1, "reward_pattern": "[a-z]", "pattern_weight": 1.0},
        None,
    ),
    "new head": ("hf-classify", write_bare_bert, "text", {}, ["classifier"]),
    "new head of two layers": (
        "hf-classify",
        write_bare_roberta,
        "text",
        {},
        ["classifier.dense", "classifier.out_proj"],
    ),
    "new head of a decoder": ("hf-classify", write_model, "text", {}, ["score"]),
    "its own head": ("hf-classify", lambda folder: write_model(folder, "bert"), "text", {}, None),
    "pictures": ("hf-clip", write_clip, "pictures", {}, None),
}


def merged(workload: Any, adapter: Path) -> Any:
    """The workload's base with the run's s·B·A added to its weights, one layer after the other."""
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    for name, parts in read_run_adapter(adapter).items():
        update = float(parts["scale"]) * parts["B"].astype(np.float64) @ parts["A"].astype(np.float64)
        model.get_submodule(name).weight += torch.from_numpy(update)
    return model.float()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("case", sorted(EXPORTS))
def test_an_exported_adapter_gives_the_runs_own_logits(store, settings, tmp_path, case):
    name, write, rows, asked, whole = EXPORTS[case]
    models = settings.home / "models"
    folder = write(models / "base")
    data = write_pictures(models / "data") if rows == "pictures" else models / "data.jsonl"
    if rows in ROWS:
        write_jsonl(data, ROWS[rows]())
    options = {"model": str(folder), "data": str(data), "max_tokens": 32, **asked}
    (run,) = train(
        store,
        settings,
        workload=name,
        workload_options=options,
        ranks=[2],
        alphas=[64],
        lrs=[3e-3],
        steps=4,
        batch_size=4,
    )
    out = unpack(store, settings, run.id, tmp_path / "out")
    config = json.loads((out / "adapter_config.json").read_text())
    info = workload_info(name)
    assert (config["task_type"], config["modules_to_save"]) == (info.task_type, whole)
    readme = (out / "README.md").read_text()
    assert f"{info.auto_class}.from_pretrained(" in readme
    assert readme.count("brings them whole") == len(whole or [])
    assert ("pad_token_id" in readme) == (whole == ["score"])
    labels = {"num_labels": 3} if name == "hf-classify" and whole else {}
    base = getattr(transformers, info.auto_class).from_pretrained(folder, **labels)
    if whole == ["score"]:
        base.config.pad_token_id = byte_tokenizer().pad_token_id
    workload = load_workload(name, options)
    for _ in workload.prepare(settings.files.cache):
        pass
    with store.read() as session:
        reference = merged(workload, settings.home / find_run(session, run.id).adapter)

    ids = torch.arange(3 * 7).view(3, 7) * 5 % 200 + 20
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name == "hf-clip":
        pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        given |= {"input_ids": torch.cat([ids, torch.ones(3, 1).long()], 1), "pixel_values": pixels}
        given["attention_mask"] = torch.ones_like(given["input_ids"])

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            found = model.eval()(**given)
        return found.logits_per_image if name == "hf-clip" else found.logits

    before = logits(base) if not whole else None
    loaded = logits(PeftModel.from_pretrained(base, out))
    torch.testing.assert_close(loaded, logits(reference), rtol=1e-4, atol=1e-5)
    assert before is None or (loaded - before).abs().max() > 1e-2, "an adapter of nothing would prove nothing"


def test_every_workload_on_a_model_of_the_users_own_says_what_loads_it():
    own = [info for info in WORKLOADS.values() if "model" in info.options.model_fields]
    assert {info.name for info in own} == {name for name in WORKLOADS if name.startswith("hf-")}
    for info in own:
        workload = load_workload(info.name, {"model": "m", "data": "d"})
        assert info.auto_class == workload.auto_class.__name__
        assert info.task_type in {None, *TaskType}
    assert not [info.name for info in WORKLOADS.values() if info not in own and info.auto_class]


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
    for _ in workload.prepare(settings.files.cache):
        pass
    losses = []
    for index, label in enumerate(workload.data.held_out_labels):
        tokens = torch.from_numpy(workload.data.held_out.example(index)).long()[None]
        with torch.no_grad():
            logits = loaded(input_ids=tokens).logits
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([label]))))
    assert sum(losses) / len(losses) == pytest.approx(run.final_loss, rel=1e-5)
