from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, DebertaV2Config, DebertaV2Model

from lora_alpha.errors import InvalidSpec
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import PackFinished
from lora_alpha.workloads.registry import load_workload
from tests.tiny_encoders import write_bare_bert
from tests.tiny_folders import NUM_TOKENS, byte_tokenizer, write_jsonl, write_model

CPU = torch.device("cpu")


def rows(count: int = 60) -> list[dict[str, Any]]:
    """Texts whose label is in their first word, of different lengths."""
    words = ("good", "bad", "fair")
    return [
        {"sentence1": f"{words[n % 3]} {'x' * (n % 5)}", "sentence2": f"no {n}", "label": words[n % 3]}
        for n in range(count)
    ]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bare_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="session")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deberta") / "model"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    positions = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=NUM_TOKENS, max_position_embeddings=256, position_buckets=16, **sizes, **positions
    )
    DebertaV2Model(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def prepared(bert: Path, tmp_path: Path) -> Callable[..., Any]:
    data = write_jsonl(tmp_path / "texts.jsonl", rows())

    def make(**options: Any) -> Any:
        given = {"model": str(bert), "data": str(data), "max_tokens": 64, "held_out": 0.25}
        workload = load_workload("hf-classify", {**given, **options})
        for _ in workload.prepare(tmp_path / "cache"):
            pass
        return workload

    return make


def configurations(**changes: Any) -> list[Configuration]:
    given = {"method": "lora", "lr": 5e-3, "seed": 0}
    return [
        Configuration(**{**given, "rank": rank, "alpha": alpha, "seed": seed, **changes})
        for rank, alpha, seed in ((2, 32.0, 0), (4, 64.0, 0), (4, 64.0, 1))
    ]


def train(workload: Any, members: list[Configuration], **changes: Any) -> PackFinished:
    given = {"workload": workload.name, "steps": 40, "batch_size": 8, "eval_every": 20, "warmup": 2}
    (finished,) = (
        event
        for event in train_pack(workload, TrainSpec(**{**given, **changes}), members)
        if isinstance(event, PackFinished)
    )
    return finished


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama") / "model", "llama")


@pytest.mark.parametrize("kind", ["bert", "deberta", "llama"])
def test_the_held_out_loss_falls(prepared: Callable[..., Any], kind: str, request: Any) -> None:
    workload = prepared(model=str(request.getfixturevalue(kind)))
    finished = train(workload, configurations())
    for result in finished.results:
        assert result.final_loss < 0.9 * np.log(3)
        assert result.summary["accuracy"] > 0.5
        assert 0 < result.forgetting < 10


@pytest.mark.parametrize("kind", ["bert", "deberta", "llama"])
def test_a_pack_trains_as_one_at_a_time_does(prepared: Callable[..., Any], kind: str, request: Any) -> None:
    options = {"model": str(request.getfixturevalue(kind))}
    exact = {"steps": 6, "dtype": "float64"}
    together = train(prepared(**options), configurations(), **exact)
    for member, result in zip(configurations(), together.results, strict=True):
        (alone,) = train(prepared(**options), [member], **exact).results
        assert result.final_loss == pytest.approx(alone.final_loss, rel=1e-10)
        assert result.forgetting == pytest.approx(alone.forgetting, rel=1e-8)


def test_loss_and_accuracy_are_those_of_transformers(prepared: Callable[..., Any]) -> None:
    workload = prepared(num_eval=100)
    model = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, workload.targets(model), configurations()[:2])
    for _, _, layer in adapters.group_layers():
        torch.nn.init.normal_(layer.B, std=0.05, generator=torch.Generator().manual_seed(3))
    found = workload.evaluate(model, num_configs=2)
    held_out, labels = workload.data.held_out, workload.data.held_out_labels
    losses, right = torch.zeros(2, dtype=torch.float64), torch.zeros(2)
    for index, label in enumerate(labels):
        tokens = torch.from_numpy(held_out.example(index)).long()[None]
        types = (torch.arange(tokens.shape[1]) >= held_out.prompt_lengths[index]).long()[None]
        output = model(input_ids=tokens.repeat(2, 1), token_type_ids=types.repeat(2, 1))
        losses += F.cross_entropy(output.logits, torch.tensor([label, label]), reduction="none").detach()
        right += output.logits.argmax(-1) == label
    torch.testing.assert_close(found["eval_loss"], losses / len(labels), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["accuracy"], (right / len(labels)).double())


def test_the_head_is_the_seeds_and_is_adapted(prepared: Callable[..., Any]) -> None:
    first = prepared().build_model(device=CPU, dtype=torch.float32)
    again = prepared().build_model(device=CPU, dtype=torch.float32)
    other = prepared(head_seed=1).build_model(device=CPU, dtype=torch.float32)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not first.classifier.bias.any()
    workload = prepared(targets="query, value")
    targets = workload.targets(workload.build_model(device=CPU, dtype=torch.float32))
    assert targets[-1] == "classifier"
    assert len(targets) == 5


def test_a_head_that_the_model_brings_is_kept(prepared: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tuned", "bert")
    stored = load_file(folder / "model.safetensors")["classifier.weight"]
    workload = prepared(model=str(folder))
    model = workload.build_model(device=CPU, dtype=torch.float32)
    assert torch.equal(model.classifier.weight, stored)
    assert workload.new_layers() == {}
    two = [{"text": f"t{n}", "label": n % 2} for n in range(40)]
    with pytest.raises(InvalidSpec, match="have 2 labels, but the model in .* for 3"):
        prepared(model=str(folder), data=str(write_jsonl(tmp_path / "two.jsonl", two)))


def test_deberta_adapts_what_is_its_configurations_own(prepared: Callable[..., Any], deberta: Path) -> None:
    workload = prepared(model=str(deberta))
    targets = workload.targets(workload.build_model(device=CPU, dtype=torch.float32))
    assert any("value_proj" in name for name in targets)
    assert not any("query_proj" in name or "key_proj" in name for name in targets)
    workload = prepared(model=str(deberta), targets="query_proj")
    with pytest.raises(InvalidSpec, match="also projects relative positions"):
        workload.targets(workload.build_model(device=CPU, dtype=torch.float32))


def test_a_tokenizer_may_set_a_shorter_limit_than_the_positions(
    prepared: Callable[..., Any], bert: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bert, tmp_path / "roberta")
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 48
    tokenizer.save_pretrained(folder)
    with pytest.raises(InvalidSpec, match="reads at most 48 tokens"):
        prepared(model=str(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "verdict"}, "no column 'verdict': there are sentence1, sentence2, label"),
        ({"text_column": "body"}, "no column 'body'"),
        ({"label_column": "sentence2"}, "does not occur in training|different values"),
        ({"max_tokens": 4096}, "reads at most 256"),
    ],
)
def test_what_is_wrong_is_said(prepared: Callable[..., Any], options: Any, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        prepared(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "good"}, "one value only"),
        ({"label": None}, "instead of a label"),
        ({"sentence1": 5}, "instead of a text"),
    ],
)
def test_rows_that_are_wrong_are_said(
    prepared: Callable[..., Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    data = write_jsonl(tmp_path / "wrong.jsonl", [{**row, **change} for row in rows()])
    with pytest.raises(InvalidSpec, match=message):
        prepared(data=str(data))


def test_an_inspection_says_what_was_found(prepared: Callable[..., Any]) -> None:
    found = prepared().findings()
    assert found["labels"] == ["bad", "fair", "good"]
    assert found["rendering"] == "sentence1 and sentence2 → label"
    assert found["architecture"] == "BertForSequenceClassification"
    assert found["new_layers"] == ["classifier"]
    assert found["num_train"] + found["num_held_out"] == 60


def test_transformers_own_head_is_not_used(prepared: Callable[..., Any], bert: Path) -> None:
    torch.manual_seed(7)
    theirs = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3)
    ours = prepared().build_model(device=CPU, dtype=torch.float32)
    assert not torch.equal(theirs.classifier.weight, ours.classifier.weight)
    assert torch.equal(theirs.bert.pooler.dense.weight, ours.bert.pooler.dense.weight)


@pytest.mark.parametrize("option", [{"accumulation": 3}, {"gradient_checkpointing": True}])
def test_options_that_save_memory_change_nothing_else(
    prepared: Callable[..., Any], option: dict[str, Any]
) -> None:
    exact = {"steps": 3, "dtype": "float64"}
    plain = train(prepared(), configurations()[:2], **exact)
    saving = train(prepared(**option), configurations()[:2], **exact)
    for first, second in zip(plain.results, saving.results, strict=True):
        assert second.final_loss == pytest.approx(first.final_loss, rel=1e-10)


def test_rows_are_no_wider_than_the_model_reads(prepared: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "short", "bert", max_position_embeddings=11)
    workload = prepared(model=str(folder), max_tokens=11)
    model = workload.build_model(device=CPU, dtype=torch.float32)
    batch = workload.batch(model, step=0, seeds=[0], batch_size=16)
    assert batch["tokens"].shape[1] == 11
    assert torch.isfinite(workload.losses(model, batch, num_configs=1)).all()
