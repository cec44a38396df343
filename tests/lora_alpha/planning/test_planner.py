"""Pack sizes by rows and memory; every configuration in exactly one pack."""

from __future__ import annotations

import json

import pytest

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.entry import Footprint
from lora_alpha.planning import fleet
from lora_alpha.planning.fleet import Fleet, gpu_memory_bytes, machine_memory_bytes
from lora_alpha.planning.planner import estimate_seconds, largest_pack, pack_limit, plan_packs
from lora_alpha.spec import Configuration, TrainSpec

GIB = 2**30
SHAPE = {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 2048, "vocab_size": 4096}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    return tmp_path


def train(folder, *, batch_size=8, dtype="float32", **options) -> TrainSpec:
    given = {"model": str(folder), "data": "train.jsonl", "max_tokens": 128, **options}
    return TrainSpec(workload="hf-sft", workload_options=given, steps=10, batch_size=batch_size, dtype=dtype)


def test_a_pack_is_as_large_as_its_rows_pay():
    assert largest_pack(Footprint(tokens_per_example=32), batch_size=4, limit=64, row_budget=4096) == 32
    assert largest_pack(Footprint(tokens_per_example=32), batch_size=1, limit=64, row_budget=4096) == 64


def test_one_configuration_that_saturates_trains_alone():
    assert largest_pack(Footprint(tokens_per_example=1024), batch_size=8, limit=64) == 1


def test_memory_bounds_a_pack_and_one_configuration_always_goes():
    need = Footprint(tokens_per_example=10, base_bytes=1000, bytes_per_token=100)
    assert largest_pack(need, batch_size=1, limit=64, memory_bytes=1000 + 5 * 1000 + 999) == 5
    assert largest_pack(need, batch_size=1, limit=64, memory_bytes=10) == 1
    assert largest_pack(need, batch_size=1, limit=64) == 64


def test_packs_of_the_users_own_model_follow_its_options(folder, monkeypatch):
    def limit(memory_bytes=64 * GIB, **changes):
        monkeypatch.setattr(fleet, "machine_memory_bytes", lambda: 2 * memory_bytes)
        return pack_limit(train(folder, **changes), Fleet())

    assert limit(max_tokens=32) == 4 * limit(max_tokens=128)
    assert limit(batch_size=1) > limit(batch_size=8)
    assert limit(batch_size=64, max_tokens=512) == 1
    tight = {"memory_bytes": GIB // 2, "batch_size": 1}
    assert limit(**tight) < limit(batch_size=1)
    assert limit(**tight, dtype="bfloat16") > limit(**tight)
    assert limit(**tight, gradient_checkpointing=True) > limit(**tight)


def test_the_estimate_follows_the_models_size_and_its_tokens(folder):
    def seconds(**changes):
        return estimate_seconds(train(folder, **changes), num_runs=4, num_workers=2)

    assert seconds(max_tokens=512) > 1.5 * seconds(max_tokens=128) > 0
    spec = TrainSpec(workload="mlp", steps=10, batch_size=64)
    per_step = workload_info("mlp").seconds_per_step * 64 / workload_info("mlp").defaults.batch_size
    assert estimate_seconds(spec, num_runs=4, num_workers=2) == pytest.approx(per_step * 10 * 4 / 2)


def test_limits_that_were_measured_for_built_in_workloads_stay():
    for name, batch_size, expected in (("mlp", 64, 64), ("charlm", 8, 6), ("carry", 32, 8), ("clip", 64, 16)):
        spec = TrainSpec(workload=name, steps=1, batch_size=batch_size)
        assert pack_limit(spec, Fleet()) == expected, name


def test_plans_share_the_machines_memory_between_workers(folder, monkeypatch):
    monkeypatch.setattr(fleet, "machine_memory_bytes", lambda: 2 * GIB)
    spec = train(folder, batch_size=1)
    found = [Configuration(method="lora", rank=8, alpha=16, lr=1e-4, seed=seed) for seed in range(300)]
    largest = {n: max(map(len, plan_packs(spec, found, fleet=Fleet(n)))) for n in (1, 2)}
    assert 1 < largest[2] < largest[1] <= 64
    packs = plan_packs(spec, found, fleet=Fleet(2))
    assert sorted(index for pack in packs for index in pack) == list(range(300))


def test_the_containers_limit_counts(tmp_path, monkeypatch):
    total = machine_memory_bytes()
    for text, expected in ((str(total // 4), total // 4), ("max", total), ("9" * 18, total)):
        limit = tmp_path / "memory.max"
        limit.write_text(text, encoding="ascii")
        monkeypatch.setattr(fleet, "CGROUP_LIMIT", limit)
        assert machine_memory_bytes() == expected


def test_on_gpus_packs_are_larger_and_their_own_memory_bounds_them(folder):
    spec = train(folder, batch_size=1)
    assert pack_limit(spec, Fleet(gpu_bytes=80 * GIB)) == 4 * pack_limit(spec, Fleet()) == 64
    assert pack_limit(spec, Fleet(gpu_bytes=GIB)) < 64
    # Each worker has a GPU of its own.
    assert pack_limit(spec, Fleet(8, gpu_bytes=80 * GIB)) == 64


@pytest.mark.parametrize(
    ("device", "visible", "asked"),
    [("cuda:1", None, "1"), ("cuda:1", "3,GPU-7f", "GPU-7f"), ("cuda", "2", "2"), ("cuda:0", "", "0")],
)
def test_the_drivers_tool_is_asked_for_the_workers_own_gpu(device, visible, asked, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho 81559\n', encoding="ascii")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_memory_bytes(device) == 81559 * 2**20
    assert (tmp_path / "asked").read_text(encoding="ascii").split()[-2:] == ["-i", asked]


def test_a_cpu_has_no_gpu_memory_and_a_missing_tool_tells_nothing(monkeypatch, tmp_path):
    assert gpu_memory_bytes("cpu") == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory_bytes("cuda:0") == 0
