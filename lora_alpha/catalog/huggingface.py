"""Workloads on a transformers model and data of the user's own."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from lora_alpha.catalog.builtin import powers_of_two
from lora_alpha.catalog.builtin_text import ClipRange, KLWeight
from lora_alpha.catalog.entry import Footprint, SweepDefaults, WorkloadInfo
from lora_alpha.catalog.huggingface_options import (
    CausalLMOptions,
    ColumnOptions,
    SFTColumnOptions,
    Text,
    compiled,
)
from lora_alpha.catalog.huggingface_size import causal_lm_footprint
from lora_alpha.metrics import Metric
from lora_alpha.spec import DType

REGIME = (
    "Unknown until it is measured: it depends on the model, the data, the length of training and η. A first "
    "sweep should span many octaves of α."
)
DRIFT = (
    "loss on source_data where given, nats per token; else KL(frozen base ‖ adapted) on held-out prompts, "
    "nats per token"
)
ANSWER_PATTERN = (
    "Regular expression that finds the final answer (its group, or all that it matches); empty: the text "
    "after ####, else the last number"
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


class ReasoningSFTOptions(SFTOptions):
    """Also whether the learnt reasoning ends in the right answer."""

    accuracy_prompts: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="Held-out prompts that each evaluation answers greedily, to report accuracy; 0: "
            "none, since writing answers costs far more than reading them",
        ),
    ] = 0
    max_new_tokens: Annotated[
        int, Field(ge=1, le=8192, description="Longest answer that is written for accuracy")
    ] = 256
    answer_pattern: Annotated[Text, Field(description=ANSWER_PATTERN)] = ""

    @model_validator(mode="after")
    def _answer_pattern_compiles(self) -> Self:
        if self.answer_pattern:
            compiled("answer_pattern", self.answer_pattern)
        return self


class RLOptions(CausalLMOptions, ColumnOptions):
    """Knobs of reinforcement learning with verifiable rewards."""

    group_size: Annotated[int, Field(ge=2, le=256, description="Completions sampled for each prompt")] = 8
    max_new_tokens: Annotated[
        int, Field(ge=1, le=8192, description="Longest completion; part of max_tokens")
    ] = 128
    temperature: Annotated[
        float,
        Field(ge=0.1, le=10, description="Sampling temperature; the trained policy is the tempered one"),
    ] = 1.0
    clip_range: ClipRange = 0.2
    kl_weight: KLWeight = 0.0
    exact_weight: Annotated[
        float, Field(ge=0, le=100, description="Weight of the right final answer in the reward")
    ] = 1.0
    answer_pattern: Annotated[Text, Field(description=ANSWER_PATTERN)] = ""
    reward_pattern: Annotated[
        Text, Field(description="Regular expression that is rewarded wherever it is found in the completion")
    ] = ""
    pattern_weight: Annotated[float, Field(ge=0, le=100, description="Weight of reward_pattern")] = 0.0
    form_pattern: Annotated[
        Text, Field(description="Regular expression that the whole completion should be of")
    ] = ""
    form_weight: Annotated[float, Field(ge=0, le=100, description="Weight of form_pattern")] = 0.0
    eval_samples: Annotated[
        int, Field(ge=1, le=256, description="Completions sampled for each held-out prompt")
    ] = 4

    def compiled(self, option: str) -> re.Pattern[str] | None:
        """The regular expression of ``option``, None where it is empty."""
        text = getattr(self, option)
        return compiled(option, text) if text else None

    @model_validator(mode="after")
    def _rewards_are_complete(self) -> Self:
        for option in ("answer_pattern", "reward_pattern", "form_pattern"):
            self.compiled(option)
        for pattern, weight in (("reward_pattern", "pattern_weight"), ("form_pattern", "form_weight")):
            if bool(getattr(self, pattern)) != (getattr(self, weight) > 0):
                raise ValueError(f"{pattern} and {weight} go together: give both or neither")
        if not self.exact_weight + self.pattern_weight + self.form_weight > 0:
            raise ValueError("exact_weight, pattern_weight and form_weight are all 0: nothing is rewarded")
        if self.max_new_tokens >= self.max_tokens:
            raise ValueError(
                f"got max_new_tokens {self.max_new_tokens} of max_tokens {self.max_tokens}: no token is left "
                "for the prompt"
            )
        return self


def rl_footprint(options: RLOptions, dtype: DType) -> Footprint:
    """An example is a prompt with all of its completions; sampling them is another forward pass."""
    need = causal_lm_footprint(options, dtype)
    return replace(
        need,
        tokens_per_example=options.group_size * options.max_tokens,
        train_flops_per_token=1.5 * need.train_flops_per_token,
    )


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
    implementation="lora_alpha.workloads.huggingface.sft:SFTWorkload",
    seconds_per_step=1.0,
    tokens_per_example=512,
    pack_limit=16,
    footprint_of=causal_lm_footprint,
    reads_files=True,
    auto_class="AutoModelForCausalLM",
    task_type="CAUSAL_LM",
)

HF_REASONING_SFT = replace(
    HF_SFT,
    name="hf-reasoning-sft",
    family="reasoning-sft",
    title="Your model: reasoning by worked solutions",
    summary="A causal language model learns to reason from questions with worked solutions, as in GSM8K.",
    metric="held-out cross-entropy of the solution, nats per token",
    options=ReasoningSFTOptions,
    implementation="lora_alpha.workloads.huggingface.sft:ReasoningSFTWorkload",
)

HF_RL = replace(
    HF_SFT,
    name="hf-rl",
    family="reasoning-rl",
    title="Your model: reasoning by reward",
    summary="A causal language model learns from its own completions, judged by a rule: the right final "
    "answer, a pattern, a form (group-relative policy gradient).",
    metric="1 − mean reward of sampled completions of held-out prompts",
    options=RLOptions,
    defaults=SweepDefaults(
        ranks=[1, 4, 16],
        alphas=powers_of_two(3, 10),
        steps=100,
        batch_size=4,
        lr_schedule="constant",
    ),
    metrics=(Metric("eval_loss", has_zero=True), Metric("train_loss")),
    implementation="lora_alpha.workloads.huggingface.rl:RLWorkload",
    seconds_per_step=10.0,
    tokens_per_example=8 * 512,
    footprint_of=rl_footprint,
)

HUGGING_FACE: tuple[WorkloadInfo, ...] = (HF_SFT, HF_REASONING_SFT, HF_RL)
