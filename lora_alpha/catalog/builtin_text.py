"""The built-in token workloads: language, reasoning by examples, reasoning by reward."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lora_alpha.catalog.builtin import powers_of_two
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.metrics import Metric
from lora_alpha.spec import Frozen

Width = Annotated[int, Field(ge=8, le=1024, description="Width of the transformer")]
Layers = Annotated[int, Field(ge=1, le=12, description="Transformer blocks")]
Heads = Annotated[int, Field(ge=1, le=16, description="Attention heads; must divide the width")]
# Of both policy-gradient workloads.
ClipRange = Annotated[float, Field(gt=0, le=10, description="The probability ratio is clipped to 1 ± this")]
KLWeight = Annotated[
    float, Field(ge=0, le=100, description="Weight of the KL divergence from the frozen base")
]


class TransformerOptions(Frozen):
    """Sizes of the causal transformer."""

    width: Width = 96
    num_layers: Layers = 2
    num_heads: Heads = 4

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(
                f"got width {self.width} and {self.num_heads} heads: the heads must divide the width"
            )
        return self


class CharLMOptions(TransformerOptions):
    """Knobs of the character language model."""

    width: Width = 128
    context: Annotated[int, Field(ge=4, le=512, description="Characters per window")] = 32
    source: Annotated[Literal["english", "python"], Field(description="Text the base is pre-trained on")] = (
        "english"
    )
    target: Annotated[
        Literal["python", "english", "uppercase", "reversed"],
        Field(
            description="Text it is fine-tuned on; uppercase and reversed are the source text in capitals "
            "(a small shift) and backwards (a large one)"
        ),
    ] = "python"
    pretrain_steps: Annotated[int, Field(ge=1, le=100_000, description="Steps that made the base")] = 1500

    @model_validator(mode="after")
    def _target_differs(self) -> Self:
        if self.source == self.target:
            raise ValueError(f"got {self.source!r} as source and target: they must differ")
        return self


class CarryOptions(TransformerOptions):
    """Knobs of column addition."""

    digits: Annotated[int, Field(ge=1, le=6, description="Digits of each addend")] = 3
    target: Annotated[
        Literal["all", "carry"],
        Field(description="Problems to learn: all additions, or only those with a carry"),
    ] = "all"
    order: Annotated[
        Literal["ones-first", "ones-last"],
        Field(description="Order of the answer's digits; ones-first lets each carry be worked out in turn"),
    ] = "ones-first"
    pretrain_steps: Annotated[int, Field(ge=1, le=100_000, description="Steps that made the base")] = 150


class ModRLOptions(TransformerOptions):
    """Knobs of modular arithmetic by reward."""

    modulus: Annotated[int, Field(ge=5, le=97, description="Arithmetic is modulo this number")] = 23
    group_size: Annotated[int, Field(ge=2, le=256, description="Answers sampled for each prompt")] = 16
    clip_range: ClipRange = 0.2
    kl_weight: KLWeight = 0.0
    temperature: Annotated[
        float,
        Field(ge=0.1, le=10, description="Sampling temperature; the clipped ratio corrects for it"),
    ] = 1.0
    pretrain_steps: Annotated[int, Field(ge=1, le=100_000, description="Steps that made the base")] = 900


CHARLM = WorkloadInfo(
    name="charlm",
    family="sft",
    title="Character language model",
    summary="A small language model of English (Python's own help texts) is fine-tuned on Python source.",
    regime="A broad shift learnt in few steps with a flat basin: the fitted exponent is usually below 1/2.",
    metric="held-out cross-entropy on the target text, nats per character",
    forgetting="held-out cross-entropy on the source text, nats per character",
    options=CharLMOptions,
    defaults=SweepDefaults(
        ranks=[1, 2, 4, 8, 16, 32], alphas=powers_of_two(6, 12), steps=120, batch_size=8, eval_every=40
    ),
    implementation="lora_alpha.workloads.charlm:CharLMWorkload",
    seconds_per_step=1.1e-2,
    tokens_per_example=32,
    pack_limit=6,
)

CARRY = WorkloadInfo(
    name="carry",
    family="reasoning-sft",
    title="Addition with carries",
    summary="A transformer that adds without carries learns, from worked examples, to carry.",
    regime="A narrow new skill on top of one that stays useful: √r-like, with a wide seed spread.",
    metric="held-out cross-entropy of the answer, nats per answer digit",
    forgetting="held-out cross-entropy of the answer on carry-free problems, nats per answer digit",
    options=CarryOptions,
    defaults=SweepDefaults(
        ranks=[1, 2, 4, 8, 16, 32], alphas=powers_of_two(7, 13), steps=150, batch_size=32, eval_every=50
    ),
    implementation="lora_alpha.workloads.carry:CarryWorkload",
    seconds_per_step=9.0e-3,
    tokens_per_example=11,
    pack_limit=8,
)

MOD_RL = WorkloadInfo(
    name="mod-rl",
    family="reasoning-rl",
    title="Modular arithmetic by reward",
    summary="The base answers an ambiguous a±b with either result; a verifiable reward asks for a−b.",
    regime="Selecting between two skills the base has: any rank is enough, so α* hardly depends on the rank "
    "(exponent near 0).",
    metric="1 − exact P(correct) on held-out prompts",
    forgetting="cross-entropy on the explicit a+b and a−b that the base has mastered, nats per answer",
    options=ModRLOptions,
    defaults=SweepDefaults(
        ranks=[1, 2, 4, 8, 16, 32, 64],
        alphas=powers_of_two(3, 10),
        seeds=[0, 1, 2, 3, 4],
        steps=100,
        batch_size=8,
        lr_schedule="constant",
    ),
    metrics=(Metric("eval_loss", has_zero=True), Metric("train_loss")),
    implementation="lora_alpha.workloads.mod_rl:ModRLWorkload",
    seconds_per_step=1.6e-3,
    tokens_per_example=4,
    pack_limit=64,
)

TEXT: tuple[WorkloadInfo, ...] = (CHARLM, CARRY, MOD_RL)
