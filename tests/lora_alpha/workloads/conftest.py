"""Small, quickly prepared versions of the built-in workloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.registry import load_workload

SMALL: dict[str, dict[str, Any]] = {
    "charlm": {"width": 16, "num_heads": 2, "context": 8, "pretrain_steps": 3},
    "carry": {"width": 16, "num_heads": 2, "digits": 2, "pretrain_steps": 3},
    "mod-rl": {"width": 16, "num_heads": 2, "modulus": 5, "group_size": 4, "pretrain_steps": 3},
    "clip": {"width": 16, "num_heads": 2, "pretrain_steps": 3},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture
def prepared(bases: Path) -> Callable[..., Workload]:
    """``prepared(name, **options)``: a small workload whose base is ready."""

    def make(name: str, **options: Any) -> Workload:
        workload = load_workload(name, {**SMALL[name], **options})
        for _ in workload.prepare(bases):
            pass
        return workload

    return make
