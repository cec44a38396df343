"""Inspections from the request to what the form shows: many ways to be wrong, one clear error each."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.services import jobs
from lora_alpha.errors import InvalidSpec
from tests.tiny_folders import write_jsonl, write_model

ROWS = [{"question": f"{a} + {a * a % 7}?", "answer": f"{a + a * a % 7}"} for a in range(40)]


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("original") / "model")


@pytest.fixture
def options(tmp_path, original) -> dict[str, Any]:
    """Options that are in order; the model is a copy that a test may spoil."""
    allowed = tmp_path / "allowed"
    shutil.copytree(original, allowed / "model")
    data = write_jsonl(allowed / "sums.jsonl", ROWS)
    return {"model": str(allowed / "model"), "data": str(data), "max_tokens": 64, "held_out": 0.2}


def test_what_is_in_order_is_described(inspect, options):
    shown = inspect(options)

    assert (shown.state, shown.error) == ("finished", None)
    found = shown.result
    assert found["rows"] == 40
    assert found["columns"] == ["question", "answer"]
    assert found["num_train"] + found["num_held_out"] == 40
    assert found["sample"] == {"prompt": "Question: 0 + 0?\nAnswer:", "completion": " 0"}
    lengths = [
        len(f"Question: {row['question']}\nAnswer: {row['answer']}") + 1 for row in ROWS
    ]  # one token a byte, and the end of text
    assert found["tokens_mean"] == pytest.approx(sum(lengths) / 40)
    assert found["tokens_max"] == max(lengths)
    assert found["num_truncated"] == found["num_dropped"] == 0
    assert found["num_targets"] == 14
    assert found["targets"][0] == "model.layers.0.self_attn.q_proj"
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["memory"]["pack_bytes"] > found["memory"]["base_bytes"] > 0
    assert [w for w in found["warnings"] if "noise" in w]
    json.dumps(found)


def test_prompts_for_rewards_are_described_with_an_answer(inspect, options):
    with (Path(options["data"]).parent / "more.jsonl").open("w") as file:
        for row in [*ROWS, {"question": "and?", "answer": ""}]:
            file.write(json.dumps(row) + "\n")
    more = {**options, "data": str(Path(options["data"]).parent / "more.jsonl"), "max_new_tokens": 8}

    found = inspect(more, workload="hf-rl").result

    assert found["sample"] == {"prompt": "Question: 0 + 0?\nAnswer:", "answer": "0"}
    assert found["num_train"] + found["num_held_out"] == 40
    assert any(
        "1 row is left out: the reference has no final answer" in warning for warning in found["warnings"]
    )
    json.dumps(found)


def test_a_built_in_workload_can_be_inspected(inspect):
    shown = inspect({"width": 16}, workload="mlp")

    assert shown.state == "finished"
    assert shown.result["num_targets"] == 5


def test_a_model_that_does_not_fit_is_said_to(inspect, options, monkeypatch):
    monkeypatch.setattr("workers.handlers.inspect.available_bytes", lambda _: 1000)

    warnings = inspect(options).result["warnings"]

    assert any("one configuration needs about" in warning for warning in warnings)


def test_held_out_rows_that_are_trained_on_are_counted(inspect, options):
    found = inspect({**options, "test_data": options["data"]}).result

    assert found["num_shared"] == 40
    assert any("40 held-out examples are trained on as well" in w for w in found["warnings"])


def test_truncation_is_counted(inspect, options):
    found = inspect({**options, "max_tokens": 27}).result

    assert found["num_truncated"] > 0
    assert any("lose their end" in warning for warning in found["warnings"])


def spoil(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda _: changes


def file(name: str, text: str) -> Callable[[Path], dict[str, Any]]:
    def write(allowed: Path) -> dict[str, Any]:
        (allowed / name).write_text(text)
        return {"data": str(allowed / name)}

    return write


def without(*names: str) -> Callable[[Path], dict[str, Any]]:
    def remove(allowed: Path) -> dict[str, Any]:
        for name in names:
            (allowed / "model" / name).unlink()
        return {}

    return remove


def pickled(allowed: Path) -> dict[str, Any]:
    (allowed / "model" / "model.safetensors").rename(allowed / "model" / "pytorch_model.bin")
    return {}


def configured(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    def write(allowed: Path) -> dict[str, Any]:
        path = allowed / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return {}

    return write


def cut_short(allowed: Path) -> dict[str, Any]:
    path = allowed / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return {}


def outside(allowed: Path) -> dict[str, Any]:
    elsewhere = allowed.parent / "elsewhere"
    shutil.copytree(allowed / "model", elsewhere)
    (allowed / "link").symlink_to(elsewhere)
    return {"model": str(allowed / "link")}


WRONG: dict[str, tuple[Callable[[Path], dict[str, Any]], str, str]] = {
    "missing folder": (spoil(model="./nowhere"), "model", r"no file or folder './nowhere'"),
    "outside the roots": (outside, "model", r"lies outside the allowed folders .* LORA_ALPHA_ALLOWED_ROOTS"),
    "file instead of folder": (file("x.jsonl", ""), "data", r"x.jsonl is empty"),
    "no config": (without("config.json"), "model", r"has no config.json, so it is no model"),
    "pickled weights": (pickled, "model", r"weights as pytorch_model.bin, .* only safetensors"),
    "damaged weights": (cut_short, "model", r"model.safetensors is damaged .* copy it again"),
    "unknown architecture": (
        configured(model_type="marvel"),
        "model",
        r"config.json' is not understood|marvel",
    ),
    "another architecture": (configured(intermediate_size=20), "model", r"cannot be loaded|lack"),
    "no tokenizer": (without("tokenizer.json"), "model", r"has no tokenizer \(tokenizer.json"),
    "missing data": (spoil(data="./nowhere.jsonl"), "data", r"no file or folder './nowhere.jsonl'"),
    "wrong ending": (file("x.xlsx", "x"), "data", r"ends in '.xlsx': what can be read are .jsonl, .csv"),
    "invalid JSON": (
        file("x.jsonl", '{"question": "a", "answer": "b"}\n{"question": \n'),
        "data",
        r"x.jsonl, line 2: no valid JSON",
    ),
    "empty cell": (
        file("x.jsonl", '{"question": "a", "answer": "b"}\n{"question": "c", "answer": null}\n'),
        "data",
        r"row 2: column answer is empty",
    ),
    "uneven CSV": (file("x.csv", "question,answer\na,b\nc\n"), "data", r"x.csv, line 3: another number"),
    "missing column": (
        spoil(prompt_column="ask", completion_column="answer"),
        "prompt_column",
        r"no column 'ask': there are question, answer",
    ),
    "unknown columns": (
        file("x.jsonl", '{"a": 1, "b": 2}\n' * 3),
        "prompt_column",
        r"say how the columns a, b make a prompt",
    ),
    "template with unknown field": (
        spoil(prompt_template="Q: {quest}", completion_column="answer"),
        "prompt_template",
        r"{quest} is no column: there are question, answer",
    ),
    "template with loose brace": (
        spoil(prompt_template="Q: {question", completion_column="answer"),
        "prompt_template",
        r"expected '}'",
    ),
    "no chat template": (
        file("x.jsonl", '{"messages": [{"role": "user", "content": "a"}]}\n' * 3),
        "messages_column",
        r"has no chat template",
    ),
    "everything too long": (
        spoil(max_tokens=8),
        "max_tokens",
        r"got 8: every training prompt fills it .* \(the shortest has 24 tokens\)",
    ),
    "longer than the model": (spoil(max_tokens=1000), "max_tokens", r"the model reads at most 256 tokens"),
    "held-out empty": (spoil(held_out=0.001), "held_out", r"0.001 of 40 rows leaves no held-out row"),
    "held-out table of another kind": (
        lambda allowed: {"test_data": file("x.xlsx", "x")(allowed)["data"]},
        "test_data",
        r"ends in '.xlsx': what can be read are .jsonl, .csv",
    ),
    "held-out columns differ": (
        lambda allowed: {"test_data": file("x.jsonl", '{"a": 1}\n')(allowed)["data"]},
        "test_data",
        r"x.jsonl has no column question: it has a",
    ),
    "nothing to learn": (
        lambda allowed: dict.fromkeys(("data", "test_data"), file("x.csv", "text,n\n,1\n")(allowed)["data"]),
        "data",
        r"no training example has a token to learn within max_tokens = 64",
    ),
    "target names match nothing": (
        spoil(targets="query, q_proj"),
        "targets",
        r"no linear layer is called query: there are q_proj, k_proj",
    ),
    "target expression matches nothing": (
        spoil(targets=r".*\.attention\.(q|v)"),
        "targets",
        r"matches no linear layer: there are q_proj",
    ),
    "output layer as target": (spoil(targets="lm_head"), "targets", r"lm_head is the output layer"),
    "rank pattern matches nothing": (
        spoil(rank_pattern={"query": 4}),
        "rank_pattern",
        r"'query' matches none of the 14 targets: there are q_proj",
    ),
    "alpha pattern matches nothing": (
        spoil(alpha_pattern={"query": 4}),
        "alpha_pattern",
        r"'query' matches none",
    ),
    "no such hub model": (
        spoil(model="nobody/nothing"),
        "model",
        r"no local folder, and as a model on the hub",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_wrong_is_said(inspect, options, case, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    change, field, message = WRONG[case]

    shown = inspect({**options, **change(tmp_path / "allowed")})

    assert shown.state == "failed"
    assert shown.result is None
    (named, _, text) = shown.error.partition(": ")
    assert named == f"workload_options.{field}"
    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "x"}, r"workload_options.model: field required"),
        ({"model": "x", "data": "y", "held_out": 1.5}, r"workload_options.held_out: got 1.5: .* less than 1"),
        ({"model": "x", "data": "y", "targets": "q_proj("}, r"'q_proj\(' is no regular expression"),
        (
            {"model": "x", "data": "y", "text_column": "a", "prompt_column": "b"},
            r"got text_column and prompt_column: give a text, a conversation, or",
        ),
        ({"model": "x", "data": "y", "rank_pattern": "q_proj"}, r"write a layer's name, =, and the number"),
    ],
)
def test_malformed_options_are_refused_before_a_job_exists(inspect, store, options, message):
    with pytest.raises(InvalidSpec, match=message):
        inspect(options)
    assert jobs.claim(store, owner="test", queues=["default"], now=time.time(), lease_s=15.0) is None
