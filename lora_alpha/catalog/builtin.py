"""The built-in workloads: they need no download and run on a laptop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.metrics import Metric
from lora_alpha.spec import Frozen


def powers_of_two(low: int, high: int) -> list[float]:
    """2^low … 2^high, both ends included."""
    return [float(2**exponent) for exponent in range(low, high + 1)]


class MlpOptions(Frozen):
    """Knobs of the synthetic flagship."""

    width: Annotated[int, Field(ge=8, le=4096, description="Hidden width of the 5-layer ReLU network")] = 256
    shift: Annotated[
        float, Field(gt=0, le=10, description="Size of the weight shift to learn, relative to W0")
    ] = 0.5
    shift_rank: Annotated[
        int | Literal["full"], Field(description="Rank of the shift in each layer, or full")
    ] = 8
    task_seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of W0, shift and data")] = 0


class DigitsOptions(Frozen):
    """Knobs of the handwriting task."""

    task: Annotated[
        Literal["permuted", "rotated"],
        Field(description="permuted: labels become 3y+7 mod 10; rotated: images turn by 90°"),
    ] = "permuted"
    width: Annotated[int, Field(ge=8, le=1024, description="Hidden width of the 4-layer network")] = 128


MLP = WorkloadInfo(
    name="mlp",
    family="synthetic",
    title="Synthetic 5-layer MLP",
    summary="A 5-layer ReLU network learns a known low-rank shift of its own weights.",
    regime="Chosen because it sits in a √r-like regime; shift, steps and lr move it elsewhere.",
    metric="held-out MSE / MSE of the untrained base",
    forgetting="held-out MSE against the base's own outputs / their variance",
    options=MlpOptions,
    defaults=SweepDefaults(
        ranks=[1, 2, 4, 8, 16, 32, 64],
        alphas=powers_of_two(5, 13),
        steps=300,
        batch_size=64,
        dynamics_every=60,  # at rank 64 a watched step costs as much as four
    ),
    metrics=(Metric("eval_loss", unit="of the base's MSE", has_zero=True),),
    implementation="lora_alpha.workloads.mlp:MlpWorkload",
    seconds_per_step=1.0e-3,
)

DIGITS = WorkloadInfo(
    name="digits",
    family="classification",
    title="Handwritten digits",
    summary="A small classifier of scikit-learn's real digits is fine-tuned to permuted labels.",
    regime="Relabelling moves every layer far: the fitted exponent is usually below 1/2.",
    metric="held-out cross-entropy, nats per image",
    forgetting="held-out cross-entropy on the original labels, nats per image",
    options=DigitsOptions,
    defaults=SweepDefaults(
        ranks=[1, 2, 4, 8, 16, 32],
        alphas=powers_of_two(6, 14),
        seeds=[0, 1, 2, 3, 4],
        steps=300,
        batch_size=64,
    ),
    implementation="lora_alpha.workloads.digits:DigitsWorkload",
    seconds_per_step=3.0e-4,
)

BUILTIN: tuple[WorkloadInfo, ...] = (MLP, DIGITS)
