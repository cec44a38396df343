from __future__ import annotations

from collections.abc import Callable
from pydoc_data import topics
from typing import Any

import pytest
import torch

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.charlm import ALPHABET
from lora_alpha.workloads.registry import load_workload

from .conftest import SMALL

Prepared = Callable[..., Workload]


def lines(workload: Workload, *, seed: int = 0, size: int = 64) -> list[str]:
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    tokens = workload.batch(model, step=0, seeds=[seed], batch_size=size)["tokens"]
    return ["".join(ALPHABET[index] for index in row) for row in tokens.tolist()]


def english() -> str:
    text = "\n".join(topics.topics[key] for key in sorted(topics.topics)).replace("\t", " ")
    return "".join(character for character in text if character in ALPHABET)


def test_windows_are_one_longer_than_the_context(prepared: Prepared) -> None:
    assert {len(line) for line in lines(prepared("charlm"))} == {9}


def test_target_python_is_source_code(prepared: Prepared) -> None:
    text = "".join(lines(prepared("charlm"), size=2000))

    assert text.count("self") + text.count("def ") + text.count("import") > 20


@pytest.mark.parametrize("target", ["uppercase", "reversed"])
def test_derived_targets_are_the_source_text_changed(prepared: Prepared, target: str) -> None:
    text = english()
    changed = text.upper() if target == "uppercase" else text[::-1]

    assert all(line in changed for line in lines(prepared("charlm", target=target)))


def test_training_never_reads_the_last_sixteenth(prepared: Prepared) -> None:
    text = english()
    train_part = text[: len(text) - len(text) // 16]
    workload = prepared("charlm", source="python", target="english")

    drawn = {line for seed in range(20) for line in lines(workload, seed=seed)}

    assert len(drawn) > 1000
    assert all(line in train_part for line in drawn)


def test_base_does_not_depend_on_the_target(prepared: Prepared) -> None:
    states = [
        prepared("charlm", target=target)
        .build_model(device=torch.device("cpu"), dtype=torch.float32)
        .state_dict()
        for target in ("python", "uppercase")
    ]

    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "python", "target": "python"}, "must differ"),
        ({"width": 30, "num_heads": 4}, "divide the width"),
        ({"target": "latin"}, "python"),
    ],
)
def test_impossible_options_are_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        load_workload("charlm", {**SMALL["charlm"], **options})
