"""Small models and data in folders, and workloads on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_alpha.workloads.registry import load_workload
from tests.tiny_folders import write_jsonl, write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``models(kind, **changes)``: a folder with a tiny model, made once."""
    made: dict[str, Path] = {}

    def folder(kind: str = "llama", **changes: Any) -> Path:
        key = f"{kind}-{sorted(changes.items())}"
        if key not in made:
            made[key] = write_model(tmp_path_factory.mktemp(kind) / "model", kind, **changes)
        return made[key]

    return folder


def sums(count: int = 40) -> list[dict[str, str]]:
    """Questions with answers of different lengths."""
    return [
        {"question": f"{'Well, ' * (a % 4)}{a} + {a * a % 17}?", "answer": f"{a + a * a % 17}{'!' * (a % 3)}"}
        for a in range(count)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of forty questions and answers."""
    return write_jsonl(tmp_path / "sums.jsonl", sums())


@pytest.fixture
def prepared(models: Callable[..., Path], data: Path, tmp_path: Path) -> Callable[..., Any]:
    """``prepared(name, kind=…, **options)``: a workload whose tokens are ready."""

    def make(name: str = "hf-sft", *, kind: str = "llama", **options: Any) -> Any:
        given = {"model": str(models(kind)), "data": str(data), "max_tokens": 64, "held_out": 0.2, **options}
        workload = load_workload(name, given)
        for _ in workload.prepare(tmp_path / "cache"):
            pass
        return workload

    return make
