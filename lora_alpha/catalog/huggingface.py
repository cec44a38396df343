"""Workloads on a transformers model and data of the user's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lora_alpha.catalog.builtin import powers_of_two
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.catalog.huggingface_options import CausalLMOptions, SFTColumnOptions
from lora_alpha.catalog.huggingface_size import causal_lm_footprint

REGIME = (
    "Unknown until it is measured: it depends on the model, the data, the length of training and η. A first "
    "sweep should span many octaves of α."
)
DRIFT = (
    "loss on source_data where given, nats per token; else KL(frozen base ‖ adapted) on held-out prompts, "
    "nats per token"
)


class SFTOptions(CausalLMOptions, SFTColumnOptions):
    """Knobs of supervised fine-tuning."""

    packing: Annotated[
        bool,
        Field(
            description="Put several examples into one row of max_tokens; they do not see each other. "
            "batch_size then counts rows"
        ),
    ] = False


HF_SFT = WorkloadInfo(
    name="hf-sft",
    family="sft",
    title="Your model: fine-tuning on examples",
    summary="A causal language model (LLaMA, Qwen, GPT-2, …) learns completions, texts or answers in chats.",
    regime=REGIME,
    metric="held-out cross-entropy, nats per completion token",
    forgetting=DRIFT,
    options=SFTOptions,
    defaults=SweepDefaults(
        ranks=[4, 16, 64],
        alphas=powers_of_two(4, 12),
        steps=200,
        batch_size=8,
        eval_every=50,
    ),
    seconds_per_step=1.0,
    tokens_per_example=512,
    pack_limit=16,
    footprint_of=causal_lm_footprint,
)

HF_REASONING_SFT = WorkloadInfo(
    name="hf-reasoning-sft",
    family="reasoning-sft",
    title="Your model: reasoning by worked solutions",
    summary="A causal language model learns to reason from questions with worked solutions, as in GSM8K.",
    regime=REGIME,
    metric="held-out cross-entropy of the solution, nats per token",
    forgetting=DRIFT,
    options=SFTOptions,
    defaults=SweepDefaults(
        ranks=[4, 16, 64],
        alphas=powers_of_two(4, 12),
        steps=200,
        batch_size=8,
        eval_every=50,
    ),
    seconds_per_step=1.0,
    tokens_per_example=512,
    pack_limit=16,
    footprint_of=causal_lm_footprint,
)

HUGGING_FACE: tuple[WorkloadInfo, ...] = (HF_SFT, HF_REASONING_SFT)
