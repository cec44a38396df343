from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.base_cache import cached_base, content_key


def train_once(model: nn.Module) -> Iterator[Progress]:
    yield Progress("training", 0, 1)
    model.get_parameter("weight").data += 1
    yield Progress("training", 1, 1)


def collect(folder: Path, recipe: dict[str, object]) -> tuple[list[Progress], dict[str, Tensor]]:
    generator = cached_base(
        folder, name="toy", recipe=recipe, make=lambda: nn.Linear(3, 2, bias=False), train=train_once
    )
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            return seen, stop.value


def test_second_call_reads_what_the_first_one_made(tmp_path: Path) -> None:
    progress, made = collect(tmp_path, {"seed": 1})
    again, read = collect(tmp_path, {"seed": 1})

    assert [p.done for p in progress] == [0, 1]
    assert again == []
    assert torch.equal(made["weight"], read["weight"])


def test_another_recipe_is_another_base(tmp_path: Path) -> None:
    _, one = collect(tmp_path, {"seed": 1})
    _, two = collect(tmp_path, {"seed": 2})

    assert not torch.equal(one["weight"], two["weight"])
    assert len(list((tmp_path / "bases").iterdir())) == 2


def test_unreadable_file_is_made_anew(tmp_path: Path) -> None:
    _, made = collect(tmp_path, {"seed": 1})
    path = tmp_path / "bases" / f"toy-{content_key({'seed': 1})}.safetensors"
    path.write_bytes(path.read_bytes()[:20])

    progress, again = collect(tmp_path, {"seed": 1})

    assert len(progress) == 2
    assert torch.equal(made["weight"], again["weight"])


def test_file_records_recipe_and_python_version(tmp_path: Path) -> None:
    collect(tmp_path, {"seed": 1})
    path = tmp_path / "bases" / f"toy-{content_key({'seed': 1})}.safetensors"

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()

    assert json.loads(metadata["recipe"]) == {"seed": 1}
    assert metadata["python"].startswith("3.")


def test_global_generator_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)

    collect(tmp_path, {"seed": 1})

    assert torch.equal(torch.rand(2), expected)
