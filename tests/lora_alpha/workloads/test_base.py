"""What a workload may offer is declared, and nobody asks for anything else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_alpha.workloads.base import Workload

ROOT = Path(__file__).parents[3]
ROOMS = ("lora_alpha", "workers", "backend", "dashboard", "command_line", "benchmarks")


class OneLayer(Workload):
    """Only what must be written."""

    name = "one-layer"

    def build_model(self, *, device, dtype):
        return nn.Sequential(nn.Linear(3, 2), nn.ReLU()).to(device=device, dtype=dtype)

    def batch(self, model, *, step, seeds, batch_size):
        raise NotImplementedError

    def losses(self, model, batch, *, num_configs):
        raise NotImplementedError

    def evaluate(self, model, *, num_configs):
        raise NotImplementedError


def test_what_is_not_written_has_a_default(tmp_path):
    workload = OneLayer()
    batch = {"x": torch.zeros(2)}
    assert list(workload.prepare(tmp_path)) == []
    assert workload.patterns() == {}
    assert workload.new_layers() == {}
    assert workload.micro_batches(batch, num_configs=1) == [batch]
    assert workload.findings() == {
        "parameters": 8,
        "num_targets": 1,
        "targets": ["0"],
        "adapter_parameters_per_rank": 5,
        "warnings": [],
    }


@pytest.mark.parametrize("name", sorted(Workload.__abstractmethods__))
def test_what_must_be_written_is_missed_at_once(name):
    incomplete = type("Incomplete", (OneLayer,), {name: getattr(Workload, name)})
    with pytest.raises(TypeError, match=name):
        incomplete()


def test_nobody_asks_a_workload_for_what_is_not_declared():
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 200
    asked = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in files
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("getattr", "hasattr")
        and ast.unparse(call.args[0]).endswith("workload")
    ]
    assert asked == []
