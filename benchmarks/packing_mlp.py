"""Packed sweeps of the ``mlp`` against training one configuration at a time, per configuration-step.

The rival is a plain eager loop as one would write it: ``nn.Linear`` plus two matrices, ``torch.optim.AdamW``
with its defaults, and again with whichever of its implementations (for-loop, foreach, fused) is fastest here;
batches are cut from the same data. Beside it the engine itself in packs of one, which record what packs
record. All take turns in one process on one thread; each figure is the median of its turns. The floor is the
arithmetic alone: the floating-point operations of a step at this machine's matrix-product rate, which no way
of training can beat.
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
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import plan_packs
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.optimizers import make_optimizer
from lora_alpha.workloads.registry import load_workload

RANKS = (1, 2, 4, 8, 16, 32, 64)
TARGETS = {128: 3.0, 256: 2.5}
TURNS, STEPS = 7, 20
ALONE = "packs of one"


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
    rate = product_rate()
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s on one thread")
    print("width   floor  packed   plain loop (ratio)   fastest AdamW (ratio)   packs of one (ratio)")
    for width, wanted in TARGETS.items():
        packed, plain = compare(width)
        alone = plain.pop(ALONE)
        best = min(plain, key=plain.__getitem__)
        print(
            f"{width:5d} {1e6 * work(width) / rate:7.0f} {1e6 * packed:7.0f}"
            f" {1e6 * plain['defaults']:8.0f} ({plain['defaults'] / packed:.2f})"
            f" {1e6 * plain[best]:16.0f} ({plain[best] / packed:.2f}, {best})"
            f" {1e6 * alone:14.0f} ({alone / packed:.2f})   wanted ≥ {wanted}"
        )


def product_rate() -> float:
    """Floating-point operations a second of the matrix products that a step consists of."""
    x, w = torch.randn(2048, 128), torch.randn(128, 128)
    out = torch.empty(2048, 128)
    return 2 * 2048 * 128 * 128 / min(seconds(lambda _: torch.mm(x, w, out=out)) for _ in range(10))


def work(width: int) -> float:
    """Floating-point operations of one configuration-step: mean over the ranks."""
    batch = workload_info("mlp").defaults.batch_size
    frozen = (5 + 4) * 2 * batch * width**2  # the first layer's input needs no gradient
    factors = statistics.mean((10 + 19) * 2 * batch * width * rank for rank in RANKS)
    return frozen + factors


def compare(width: int) -> tuple[float, dict[str, float]]:
    """Seconds per configuration-step over the flagship's grid: packed, and one at a time by optimizer."""
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
    packs = plan_packs(train, configurations, fleet=Fleet(2))
    packed = [packed_step(train, [configurations[index] for index in pack]) for pack in packs]
    kinds = {"defaults": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    plain = {
        kind: {rank: plain_step(train, rank=rank, settings=settings) for rank in RANKS}
        for kind, settings in kinds.items()
    }
    by_rank = {rank: next(c for c in configurations if c.rank == rank) for rank in RANKS}
    plain[ALONE] = {rank: packed_step(train, [configuration]) for rank, configuration in by_rank.items()}
    turns_packed: list[list[float]] = [[] for _ in packs]
    turns_plain: dict[str, dict[int, list[float]]] = {kind: {rank: [] for rank in RANKS} for kind in plain}
    for _ in range(TURNS):
        for turns, step in zip(turns_packed, packed, strict=True):
            turns.append(seconds(step))
        for kind, steps in plain.items():
            for rank, step in steps.items():
                turns_plain[kind][rank].append(seconds(step))
    packed_seconds = sum(statistics.median(turns) for turns in turns_packed) / len(configurations)
    return packed_seconds, {
        kind: statistics.mean(statistics.median(turns) for turns in by_rank.values())
        for kind, by_rank in turns_plain.items()
    }


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
