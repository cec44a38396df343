"""How a sweep is cut into packs. Torch-free: the service plans at submit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.entry import Footprint
from lora_alpha.methods import METHODS
from lora_alpha.planning.fleet import Fleet
from lora_alpha.spec import Configuration, TrainSpec

# Rows of one adapted layer that a pack may push through at once. Beyond it one more configuration no longer
# saves time, since the base GEMM is long past the point where dispatch dominates; memory grows all the same.
ROW_BUDGET = 16_384
# The same for models and lengths that nobody has measured: packs are fastest at about as many rows on a CPU,
# and at as many as that on an H100, with 1.2 billion weights (benchmarks/packing.py).
PAYING_ROWS = 2048
PAYING_GPU_ROWS = 8192
MOST_ON_GPU = 64  # configurations, where the limits that were measured on CPUs do not count
# What a core achieves on the products of a transformer's step (a quarter of its peak), and what a step of
# even the smallest model costs one configuration of a pack.
CORE_FLOPS = 5e10
LEAST_STEP_S = 5e-3
# Packs per worker: enough that the last ones even out, few enough that packing still pays.
PACKS_PER_WORKER = 3
# A full fine-tuning configuration costs about this much rank (its weights dominate a step).
FULL_RANK = 256
# Work of a configuration that does not depend on its rank, in units of rank.
BASE_RANK = 64


def plan_packs(train: TrainSpec, configurations: Sequence[Configuration], *, fleet: Fleet) -> list[list[int]]:
    """Cut configurations into packs that workers train one at a time.

    Configurations are sorted by method, rank and learning rate, so that a pack has few rank groups; full
    fine-tuning never shares a pack with adapters. Packs hold about equal work.

    Args:
        train: What the configurations share.
        configurations: Configurations in the sweep's order.
        fleet: Workers that will share the packs.

    Returns:
        Packs as indices into ``configurations``, largest first; every index exactly once.
    """
    limit = pack_limit(train, fleet)
    packs: list[list[int]] = []
    for full in (False, True):
        members = [
            index for index, c in enumerate(configurations) if (not METHODS[c.method].uses_rank) == full
        ]
        if members:
            size = max(1, limit // 8) if full else limit
            packs += _cut(members, configurations, limit=size, num_workers=max(1, fleet.num_workers))
    return sorted(packs, key=lambda pack: -sum(_work(configurations[index]) for index in pack))


def pack_limit(train: TrainSpec, fleet: Fleet) -> int:
    """Most configurations of ``train`` in one pack: by the workload's own limit, by rows and by memory."""
    info = workload_info(train.workload)
    need = info.footprint(train.workload_options, dtype=train.dtype)
    # A limit that was measured for a workload, on CPUs, knows more than rows in general do.
    rows = ROW_BUDGET if info.footprint_of is None else PAYING_ROWS
    return largest_pack(
        need,
        batch_size=train.batch_size,
        limit=MOST_ON_GPU if fleet.gpu_bytes else info.pack_limit,
        row_budget=PAYING_GPU_ROWS if fleet.gpu_bytes else rows,
        memory_bytes=fleet.pack_bytes,
    )


def largest_pack(
    need: Footprint,
    *,
    batch_size: int,
    limit: int,
    row_budget: int = PAYING_ROWS,
    memory_bytes: int | None = None,
) -> int:
    """Configurations that fit into ``limit``, into ``row_budget`` rows and into ``memory_bytes``; at least 1.

    Memory is the base's, and what a training step of all configurations keeps; None: no matter.

    >>> largest_pack(Footprint(tokens_per_example=64), batch_size=2, limit=64, row_budget=4096)
    32
    >>> largest_pack(Footprint(tokens_per_example=512), batch_size=16, limit=64, row_budget=4096)
    1
    """
    rows = batch_size * max(1, need.tokens_per_example)
    limit = min(limit, row_budget // rows)
    if need.bytes_per_token and memory_bytes is not None:
        limit = min(limit, (memory_bytes - need.base_bytes) // (rows * need.bytes_per_token))
    return max(1, limit)


def estimate_seconds(train: TrainSpec, *, num_runs: int, num_workers: int) -> float:
    """Rough seconds until ``num_runs`` runs are done on as many CPU cores as there are workers.

    From the catalogue's figure, or from the model's size where that decides; a GPU is far faster, which the
    installation knows once it has trained a pack.
    """
    info = workload_info(train.workload)
    need = info.footprint(train.workload_options, dtype=train.dtype)
    seconds = info.seconds_per_step * train.batch_size / info.defaults.batch_size
    if need.train_flops_per_token:
        rows = train.batch_size * need.tokens_per_example
        seconds = LEAST_STEP_S + need.train_flops_per_token * rows / CORE_FLOPS
    return seconds * train.steps * num_runs / max(1, min(num_workers, num_runs))


def _cut(
    members: Sequence[int], configurations: Sequence[Configuration], *, limit: int, num_workers: int
) -> list[list[int]]:
    ordered = sorted(members, key=lambda index: _sort_key(configurations[index]))
    least = math.ceil(len(ordered) / limit)
    wanted = max(least, min(len(ordered), num_workers * PACKS_PER_WORKER))
    # A multiple of the workers, so that no worker idles through the last round.
    wanted = min(len(ordered), math.ceil(wanted / num_workers) * num_workers)
    total = sum(_work(configurations[index]) for index in ordered)
    packs: list[list[int]] = [[]]
    done = 0.0
    for index in ordered:
        full = len(packs[-1]) >= limit
        share = done >= total * len(packs) / wanted - 1e-9
        if packs[-1] and (full or (share and len(packs) < wanted)):
            packs.append([])
        packs[-1].append(index)
        done += _work(configurations[index])
    return packs


def _work(configuration: Configuration) -> float:
    return BASE_RANK + (configuration.rank or FULL_RANK)


def _sort_key(configuration: Configuration) -> tuple[str, int, float, float]:
    c = configuration
    return (c.method, c.rank or 0, c.lr, c.alpha or 0.0)
