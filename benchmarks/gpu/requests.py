"""What is swept: in full on a GPU, in small anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from lora_alpha.request import SweepRequest
from lora_alpha.spec import ProbePlan


@dataclass(frozen=True)
class Size:
    """What is swept by how many workers of a service with which ``settings``.

    ``repeated`` is the number of requests that are swept again, with a kill.
    """

    workers: int
    requests: tuple[SweepRequest, ...]
    repeated: int
    settings: dict[str, str]


FULL = Size(
    workers=2,
    requests=(
        SweepRequest(
            name="mlp",
            workload="mlp",
            ranks=[1, 8, 64],
            alphas=[32, 128, 512, 2048],
            seeds=[0, 1],
            steps=1000,
            checkpoint_steps=100,
        ),
        SweepRequest(
            name="charlm",
            workload="charlm",
            workload_options={"pretrain_steps": 300},
            ranks=[2, 16],
            alphas=[128, 512],
            seeds=[0, 1],
            steps=400,
            checkpoint_steps=50,
            probes=ProbePlan(at=["end"], kinds=["extremes"], spaces=["lora"]),
        ),
    ),
    repeated=2,
    settings={},
)
QUICK = Size(
    workers=1,
    requests=(
        SweepRequest(
            name="mlp",
            workload="mlp",
            workload_options={"width": 16},
            ranks=[1, 4],
            alphas=[8, 32],
            seeds=[0, 1],
            steps=400,
            checkpoint_steps=25,
        ),
        SweepRequest(
            name="charlm",
            workload="charlm",
            workload_options={
                "width": 16,
                "num_layers": 1,
                "num_heads": 2,
                "context": 8,
                "pretrain_steps": 5,
            },
            ranks=[2],
            alphas=[32, 128],
            seeds=[0],
            steps=20,
            batch_size=4,
            probes=ProbePlan(at=["end"], kinds=["extremes"], spaces=["lora"]),
        ),
    ),
    repeated=1,
    settings={"lease_s": "3", "ring_after_s": "1", "point_interval_s": "0.2"},
)


def size_of(*, quick: bool) -> Size:
    """The size that was asked for."""
    return QUICK if quick else FULL
