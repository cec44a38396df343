"""What recording signal, drift and purity costs: a watched step against a plain one, per workload and rank.

The overhead at ``dynamics_every`` = k is (watched - plain) / (k · plain).
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import torch

from lora_alpha.catalog import workload_info
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.dynamics_recorder import DynamicsRecorder
from lora_alpha.training.optimizers import make_optimizer
from lora_alpha.workloads.registry import load_workload

# (workload, ranks of the pack, configurations per rank); packs as the planner cuts them: few ranks each.
CASES = [
    ("mlp", (1, 2, 4), 9),
    ("mlp", (8, 16), 14),
    ("mlp", (64,), 27),
    ("digits", (4, 8), 18),
    ("charlm", (8, 16), 4),
]
LIMIT = 0.05


def main() -> None:
    """Print ms per step, watched and plain, and the smallest k that keeps the overhead at 5 %."""
    torch.set_num_threads(1)
    print("pack                                   plain ms  watched ms  k for ≤ 5 %   at the default k")
    for name, ranks, count in CASES:
        plain, watched = time_case(name, ranks, count)
        ratio = watched / plain - 1
        default = workload_info(name).defaults.dynamics_every
        print(
            f"{name:8s} {count} × ranks {ranks!s:20s} {1e3 * plain:9.1f} {1e3 * watched:11.1f} "
            f"{max(1, math.ceil(ratio / LIMIT)):12d} {ratio / default:17.1%} ({default})"
        )


def time_case(name: str, ranks: tuple[int, ...], count: int) -> tuple[float, float]:
    """Median seconds of a plain and of a watched step, taken in turns."""
    defaults = workload_info(name).defaults
    workload = load_workload(name, {})
    for _ in workload.prepare(Path(".lora_alpha") / "cache"):
        pass
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    configurations = [
        Configuration(method="lora", rank=rank, alpha=64.0 * 2 ** (seed % 3), lr=2e-4, seed=seed)
        for rank in ranks
        for seed in range(count)
    ]
    train = TrainSpec(workload=name, steps=100, batch_size=defaults.batch_size)
    adapters = inject(model, workload.targets(model), configurations)
    recorder, optimizer = DynamicsRecorder(adapters), make_optimizer(adapters, train)
    seeds = [c.seed for c in adapters.configurations]

    def step(number: int) -> None:
        optimizer.zero_grad()
        batch = workload.batch(model, step=number, seeds=seeds, batch_size=train.batch_size)
        losses = workload.losses(model, batch, num_configs=len(seeds))
        losses.sum().backward()
        optimizer.gradient_norms()
        optimizer.step(1.0)

    plain, watched = [], []
    for number in range(14):
        started = time.perf_counter()
        step(number)
        plain.append(time.perf_counter() - started)
        started = time.perf_counter()
        with recorder.watch():
            step(number)
        watched.append(time.perf_counter() - started)
    return statistics.median(plain[2:]), statistics.median(watched[2:])


if __name__ == "__main__":
    main()
