"""Workloads on transformers encoders and data of the user's own: classifiers and dual encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from lora_alpha.catalog.builtin import powers_of_two
from lora_alpha.catalog.entry import Footprint, SweepDefaults, WorkloadInfo
from lora_alpha.catalog.huggingface import REGIME
from lora_alpha.catalog.huggingface_options import DataOptions, ModelOptions, Text
from lora_alpha.catalog.huggingface_size import (
    DTYPE_BYTES,
    KEPT_CHECKPOINTED,
    KEPT_PER_HIDDEN,
    KEPT_PER_INNER,
    causal_lm_footprint,
)
from lora_alpha.spec import DType

CLIP_PICTURE_TOKENS = 50
CLIP_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "image_size": 224,
    "patch_size": 32,
}
CLIP_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "vocab_size": 49_408,
}


class ClassificationOptions(ModelOptions, DataOptions):
    """Knobs of classification."""

    text_column: Annotated[
        Text, Field(description="Column with the text; empty: guessed (text, sentence, premise, …)")
    ] = ""
    pair_column: Annotated[
        Text, Field(description="Column with a second text; empty: guessed (sentence2, hypothesis, …)")
    ] = ""
    label_column: Annotated[
        Text, Field(description="Column with the label, a name or a number; empty: guessed (label, class, …)")
    ] = ""
    max_tokens: Annotated[
        int, Field(ge=2, le=131_072, description="Longest text, pair included; longer ones are cut")
    ] = 128
    head_seed: Annotated[
        int, Field(ge=0, lt=2**31, description="Seed of the output layer where the model brings none")
    ] = 0


class DualEncoderOptions(ModelOptions, DataOptions):
    """Knobs of image–text contrastive learning."""

    image_column: Annotated[
        Text,
        Field(
            description="Column with the picture: a path relative to the data file, or its bytes (Parquet); "
            "empty: guessed (image, image_path, file_name, …)"
        ),
    ] = ""
    caption_column: Annotated[
        Text, Field(description="Column with the caption; empty: guessed (caption, text, …)")
    ] = ""
    max_tokens: Annotated[int, Field(ge=2, le=4096, description="Longest caption; longer ones are cut")] = 77

    @model_validator(mode="after")
    def _batches_are_whole(self) -> Self:
        if self.accumulation > 1:
            raise ValueError(
                f"got accumulation {self.accumulation}: every pair of a batch is compared with every "
                "other, so that it cannot be cut; use gradient_checkpointing or a smaller batch_size"
            )
        return self


def dual_encoder_footprint(options: DualEncoderOptions, dtype: DType) -> Footprint:
    """What a training step on pairs needs: both towers, each on its own tokens; pixels are small beside them.

    What config.json leaves out is taken as in CLIP ViT-B/32; a hub model's sizes are unknown here.
    """
    config = _read_config(options.model)
    if config is None:
        return Footprint(tokens_per_example=CLIP_PICTURE_TOKENS + options.max_tokens)
    vision = {**CLIP_VISION, **config["vision_config"]}
    text = {**CLIP_TEXT, **config["text_config"]}
    width = DTYPE_BYTES[dtype]
    picture_tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    tokens = picture_tokens + options.max_tokens
    kept = parameters = 0
    for tower, count in ((vision, picture_tokens), (text, options.max_tokens)):
        hidden, inner, layers = (
            tower[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
        )
        layer = KEPT_PER_HIDDEN * hidden + KEPT_PER_INNER * inner
        whole = layers * KEPT_CHECKPOINTED * hidden + layer
        kept += count * (whole if options.gradient_checkpointing else layers * layer)
        parameters += layers * (4 * hidden**2 + 2 * hidden * inner) + tower.get("vocab_size", 0) * hidden
    return Footprint(
        tokens_per_example=tokens,
        base_bytes=parameters * width,
        bytes_per_token=max(1, kept * width // tokens),
        train_flops_per_token=4.0 * parameters,
    )


def _read_config(folder: str) -> dict[str, Any] | None:
    """``folder/config.json`` of a model with two towers; None where it is not there or is another model's."""
    try:
        config = json.loads((Path(folder).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    towers = ("vision_config", "text_config")
    is_dual = isinstance(config, dict) and all(isinstance(config.get(name), dict) for name in towers)
    return config if is_dual else None


HF_CLASSIFY = WorkloadInfo(
    name="hf-classify",
    family="classification",
    title="Your model: classification of texts",
    summary="An encoder (BERT, RoBERTa, DeBERTa, …) or any model with a classification class learns the "
    "labels of texts or pairs of texts.",
    regime=REGIME,
    metric="held-out cross-entropy, nats per text",
    forgetting="‖h − h0‖²/‖h0‖² of the last hidden states against the frozen base's, on held-out texts",
    options=ClassificationOptions,
    defaults=SweepDefaults(ranks=[2, 8, 32], alphas=powers_of_two(4, 12), steps=200, batch_size=16),
    implementation="lora_alpha.workloads.huggingface.classification:ClassificationWorkload",
    seconds_per_step=0.5,
    tokens_per_example=128,
    pack_limit=16,
    footprint_of=causal_lm_footprint,
    reads_files=True,
    # No task type: PEFT's SEQ_CLS takes the head as a whole, an adapter has single layers of it.
    auto_class="AutoModelForSequenceClassification",
)

HF_CLIP = WorkloadInfo(
    name="hf-clip",
    family="multimodal",
    title="Your model: pictures and captions",
    summary="A dual encoder of the CLIP family learns to match pictures with their captions.",
    regime=REGIME,
    metric="held-out contrastive cross-entropy, nats per pair",
    forgetting="1 − mean cosine similarity with the frozen base's embeddings, on held-out pairs",
    options=DualEncoderOptions,
    defaults=SweepDefaults(ranks=[2, 8, 32], alphas=powers_of_two(4, 12), steps=200, batch_size=32),
    implementation="lora_alpha.workloads.huggingface.dual_encoder:DualEncoderWorkload",
    seconds_per_step=5.0,
    tokens_per_example=127,  # 50 of a 224-pixel picture in patches of 32, 77 of a caption
    pack_limit=8,
    footprint_of=dual_encoder_footprint,
    reads_files=True,
    # No task type: PEFT's FEATURE_EXTRACTION passes inputs_embeds, which a model of two towers does not take.
    auto_class="AutoModel",
)

ENCODERS: tuple[WorkloadInfo, ...] = (HF_CLASSIFY, HF_CLIP)
