"""The built-in multimodal workload."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lora_alpha.catalog.builtin import powers_of_two
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.spec import Frozen


class ClipOptions(Frozen):
    """Knobs of the image–text workload."""

    width: Annotated[int, Field(ge=8, le=512, description="Width of both towers")] = 64
    image_layers: Annotated[int, Field(ge=1, le=12, description="Blocks of the vision transformer")] = 2
    text_layers: Annotated[int, Field(ge=1, le=12, description="Blocks of the text transformer")] = 1
    num_heads: Annotated[int, Field(ge=1, le=16, description="Attention heads; must divide the width")] = 4
    target: Annotated[
        Literal["rephrased", "upside-down", "both"],
        Field(
            description="rephrased: captions name the right digit first (moves the text tower); "
            "upside-down: pictures are turned over (moves the image tower)"
        ),
    ] = "both"
    pretrain_steps: Annotated[int, Field(ge=1, le=100_000, description="Steps that made the base")] = 600

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(
                f"got width {self.width} and {self.num_heads} heads: the heads must divide the width"
            )
        return self


CLIP = WorkloadInfo(
    name="clip",
    family="multimodal",
    title="Pictures of digits and their captions",
    summary="A small dual encoder learns, contrastively, a new phrasing and upside-down pictures.",
    regime="A large shift of both towers in few steps: the optimum lies close to the largest stable scale.",
    metric="held-out contrastive loss among 100 captions, nats per pair",
    forgetting="the same loss on the original captions and pictures, nats per pair",
    options=ClipOptions,
    defaults=SweepDefaults(
        ranks=[1, 2, 4, 8, 16, 32], alphas=powers_of_two(7, 13), steps=200, batch_size=32, eval_every=50
    ),
    implementation="lora_alpha.workloads.clip:ClipWorkload",
    seconds_per_step=6.0e-3,
    tokens_per_example=8,
    pack_limit=16,
)

IMAGE: tuple[WorkloadInfo, ...] = (CLIP,)
