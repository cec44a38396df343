"""Packed sweeps of the ``mlp`` against training one configuration at a time, per configuration-step.

The rival is a plain eager loop as one would write it: ``nn.Linear`` plus two matrices, ``torch.optim.AdamW``
in whichever of its implementations (for-loop, foreach, fused) is fastest here, batches cut from the same
data.
Both take turns in one process on one thread; each figure is the median of its turns.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.catalog import workload_info
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.optimizers import make_optimizer
from lora_alpha.training.planner import plan_packs
from lora_alpha.workloads.registry import load_workload

RANKS = (1, 2, 4, 8, 16, 32, 64)
TARGETS = {128: 3.0, 256: 2.5}
TURNS, STEPS = 7, 20


class PlainLoRA(nn.Module):
    """One adapter beside one frozen layer."""

    def __init__(self, base: nn.Linear, *, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.A = nn.Parameter(torch.empty(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """W0·x + s·B·A·x."""
        y: Tensor = self.base(x) + F.linear(F.linear(x, self.A), self.B) * self.scale
        return y


def main() -> None:
    """Print µs per configuration-step, packed and one at a time, at two widths."""
    torch.set_num_threads(1)
    print("width  packed µs  one at a time µs (optimizer)   ratio  wanted")
    for width, wanted in TARGETS.items():
        packed, plain, kind = compare(width)
        times = f"{1e6 * packed:10.0f} {1e6 * plain:18.0f} ({kind:8s})"
        print(f"{width:5d} {times} {plain / packed:12.2f} ≥ {wanted}")


def compare(width: int) -> tuple[float, float, str]:
    """Seconds per configuration-step over the flagship's grid: packed, one at a time, its optimizer."""
    grid = workload_info("mlp").defaults
    configurations = [
        Configuration(method="lora", rank=rank, alpha=alpha, lr=2e-4, seed=seed)
        for rank in RANKS
        for alpha in grid.alphas
        for seed in grid.seeds
    ]
    train = TrainSpec(
        workload="mlp", workload_options={"width": width}, steps=grid.steps, batch_size=grid.batch_size
    )
    packs = plan_packs(train, configurations, num_workers=2)
    packed = [packed_step(train, [configurations[index] for index in pack]) for pack in packs]
    kinds = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    plain = {
        kind: {rank: plain_step(train, rank=rank, settings=settings) for rank in RANKS}
        for kind, settings in kinds.items()
    }
    packed_seconds = 0.0
    plain_seconds = dict.fromkeys(kinds, 0.0)
    turns_packed: list[list[float]] = [[] for _ in packs]
    turns_plain: dict[str, dict[int, list[float]]] = {kind: {rank: [] for rank in RANKS} for kind in kinds}
    for _ in range(TURNS):
        for turns, step in zip(turns_packed, packed, strict=True):
            turns.append(seconds(step))
        for kind, steps in plain.items():
            for rank, step in steps.items():
                turns_plain[kind][rank].append(seconds(step))
    packed_seconds = sum(statistics.median(turns) for turns in turns_packed) / len(configurations)
    for kind, by_rank in turns_plain.items():
        plain_seconds[kind] = statistics.mean(statistics.median(turns) for turns in by_rank.values())
    best = min(plain_seconds, key=plain_seconds.__getitem__)
    return packed_seconds, plain_seconds[best], best


def packed_step(train: TrainSpec, configurations: list[Configuration]) -> Callable[[int], None]:
    """A step of one pack, as the engine does it."""
    workload = load_workload("mlp", train.workload_options)
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    adapters = inject(model, workload.targets(model), configurations)
    optimizer = make_optimizer(adapters, train)
    seeds = [c.seed for c in adapters.configurations]
    kept: list[Tensor] = []

    def step(number: int) -> None:
        optimizer.zero_grad()
        batch = workload.batch(model, step=number, seeds=seeds, batch_size=train.batch_size)
        losses = workload.losses(model, batch, num_configs=len(seeds))
        losses.sum().backward()
        kept.append(torch.stack([losses.detach(), optimizer.gradient_norms()]))
        optimizer.step(1.0)

    return step


def plain_step(train: TrainSpec, *, rank: int, settings: dict[str, bool]) -> Callable[[int], None]:
    """A step of one configuration in a plain loop."""
    workload = load_workload("mlp", train.workload_options)
    base = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)
    model = nn.Sequential(
        *(
            PlainLoRA(layer, rank=rank, scale=64.0 / rank) if isinstance(layer, nn.Linear) else layer
            for layer in base.children()
        )
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.0, **settings)
    data = workload.batch(base, step=0, seeds=[0], batch_size=64 * train.batch_size)
    inputs = data["inputs"].split(train.batch_size)
    targets = data["targets"].split(train.batch_size)

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(model(inputs[number % 64]), targets[number % 64])
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[int], None]) -> float:
    """Seconds per call, a warm-up call apart."""
    step(0)
    started = time.perf_counter()
    for number in range(STEPS):
        step(number)
    return (time.perf_counter() - started) / STEPS
