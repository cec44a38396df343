"""An inspection: prepare a workload and say what was found, so that a form can be checked before submit."""

from __future__ import annotations

from typing import Any

import torch

from lora_alpha.catalog import workload_info
from lora_alpha.curvature.memory import available_bytes
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import pack_limit
from lora_alpha.spec import TrainSpec
from workers.context import JobContext
from workers.handlers.pretrain import load_prepared

# A factor A or B, its gradient and the two moments of AdamW, each in float32.
BYTES_PER_ADAPTER_WEIGHT = 16


def run_inspection(context: JobContext) -> None:
    """Check the job's workload; what is wrong ends the job with its reason."""
    name, options = context.job.spec["workload"], context.job.spec["workload_options"]
    context.commit(message="reading the data")
    workload = load_prepared(context, name, options)
    context.commit(message="reading the model")
    found = workload.findings()
    memory = memory_estimate(name, options, found, fleet=context.settings.fleet)
    free = available_bytes(torch.device(context.device))
    least = memory["base_bytes"] + memory["bytes_per_configuration"]
    warnings = list(found["warnings"])
    if free is not None and least > free:
        warnings.append(
            f"one configuration needs about {least / 2**30:.1f} GiB and this worker has "
            f"{free / 2**30:.1f} GiB free: take bfloat16, a smaller batch, fewer max_tokens or "
            "gradient_checkpointing"
        )
    context.finish(result={**found, "memory": memory, "warnings": warnings})


def memory_estimate(
    name: str, options: dict[str, Any], found: dict[str, Any], *, fleet: Fleet
) -> dict[str, int]:
    """What a pack of this workload's default sweep takes, in bytes, with the largest of its default ranks.

    An estimate from sizes in the model's configuration, in float32: good to a factor of about two.
    """
    info = workload_info(name)
    # A hub name says nothing about sizes; the folder that it was fetched to does.
    known = options if "model" not in options else {**options, "model": found["model"]}
    defaults = info.defaults
    train = TrainSpec(
        workload=name, workload_options=known, steps=defaults.steps, batch_size=defaults.batch_size
    )
    need = info.footprint(known, dtype=train.dtype)
    count = pack_limit(train, fleet)
    adapters = found["adapter_parameters_per_rank"] * max(defaults.ranks) * BYTES_PER_ADAPTER_WEIGHT
    activations = train.batch_size * need.tokens_per_example * need.bytes_per_token
    base = need.base_bytes or 4 * found["parameters"]
    return {
        "base_bytes": base,
        "bytes_per_configuration": adapters + activations,
        "configurations_per_pack": count,
        "pack_bytes": base + count * (adapters + activations),
    }
