"""GSM8K's format from any folder: the real files where they lie, and a few problems of the same form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_alpha.catalog.presets import preset
from lora_alpha.workloads.huggingface.data.rewards import Rewards, final_answer
from lora_alpha.workloads.registry import load_workload
from tests.tiny_folders import write_jsonl

from .test_sft import curve, grid, train

REAL = Path(os.environ.get("LORA_ALPHA_GSM8K", Path(__file__).parents[5] / "shared" / "data" / "gsm8k"))
PROBLEMS = [
    {
        "question": f"Tom has {a} apples and buys {b} bags of {c}. How many apples has he?",
        "answer": f"He buys {b}*{c} = <<{b}*{c}={b * c}>>{b * c:,} apples.\n"
        f"He has {a}+{b * c} = <<{a}+{b * c}={a + b * c}>>{a + b * c:,} apples.\n#### {a + b * c:,}",
    }
    for a, b, c in ((1, 2, 3), (10, 4, 25), (7, 9, 300), (2, 2, 2), (5, 12, 12), (100, 10, 100), (0, 3, 5))
]


@pytest.fixture(params=["made", "real"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "real":
        if not (REAL / "train.jsonl").is_file():
            pytest.skip(f"GSM8K is not in {REAL}: set LORA_ALPHA_GSM8K to a folder with its train.jsonl")
        return REAL
    write_jsonl(tmp_path / "train.jsonl", PROBLEMS[:5])
    write_jsonl(tmp_path / "test.jsonl", PROBLEMS[5:])
    return tmp_path


def load(name: str, folder: Path, models: Callable[..., Path], cache: Path, **options: Any) -> Any:
    request = preset(name).request
    given = {"model": str(models("llama")), "data": str(folder), "max_tokens": 256, "num_eval": 2}
    workload = load_workload(request.workload, {**request.workload_options, **given, **options})
    for _ in workload.prepare(cache):
        pass
    return workload


def test_solutions_are_learnt_and_the_test_file_is_held_out(
    folder: Path, models: Callable[..., Path], tmp_path: Path
) -> None:
    workload = load("gsm8k-sft", folder, models, tmp_path / "cache", max_examples=200)

    facts = workload.data.facts
    assert facts["held_out_by"] == "test.jsonl"
    assert facts["columns"] == ["question", "answer"]
    first = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    assert facts["sample"]["prompt"] == f"Question: {first['question']}\nAnswer:"
    assert facts["sample"]["completion"] == f" {first['answer']}"
    steps, _ = train(workload, grid()[:1], steps=3, batch_size=2, eval_every=3, warmup=0)
    losses = curve(steps, "eval_loss")
    assert (losses[:, -1] < losses[:, 0]).all()


def test_every_reference_earns_its_own_reward(
    folder: Path, models: Callable[..., Path], tmp_path: Path
) -> None:
    workload = load("gsm8k-rl", folder, models, tmp_path / "cache", max_examples=200, max_new_tokens=32)

    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()[:200]]
    assert workload.data.facts["num_unanswered"] == 0
    for row in rows:
        reference = final_answer(row["answer"])
        assert reference is not None
        assert reference.replace(",", "").lstrip("-").replace(".", "").isdigit()
        assert workload.rewards.score(row["answer"], reference) == 1.0
        assert Rewards().score(row["answer"], f"{reference}1") == 0.0
