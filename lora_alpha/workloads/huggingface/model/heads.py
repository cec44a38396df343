"""The output layers that a pretrained encoder does not bring: fixed by a recorded seed.

Adapters train the new head like every other layer: it stays as its seed drew it, W = W_seed + s·B·A, so that
one α rules all that trains. Trainers that follow PEFT's ``modules_to_save`` train the head in full instead,
at a learning rate that no α reaches.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from lora_alpha.workloads.huggingface.model.loading import weight_files
from lora_alpha.workloads.huggingface.problems import problem

# Names of output layers in transformers' classification classes; nothing else may be missing from the files.
NEW_WEIGHTS = r"(.*\.)?(classifier|score|pooler|pre_classifier|classification_head|head)\..*"


def check_head(folder: Path, *, num_labels: int) -> None:
    """Refuse a model that brings a head for another number of labels.

    Raises:
        InvalidSpec: With both numbers.
    """
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if re.fullmatch(r"(classifier|score|classifier\.out_proj)\.weight", name):
                    rows = file.get_slice(name).get_shape()[0]
                    if rows != num_labels:
                        raise problem(
                            "label_column",
                            f"the data have {num_labels} labels, but the model in {folder} brings an output "
                            f"layer for {rows}: give the pretrained model without it, or data with {rows} "
                            "labels",
                        )


def new_linear_layers(model: nn.Module, folder: Path) -> list[str]:
    """Linear layers whose weights the files lack, in the model's order."""
    stored: set[str] = set()
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            stored |= set(file.keys())
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not _is_stored(f"{name}.weight", stored)
    ]


@torch.no_grad()
def draw_head(model: Any, names: list[str], *, seed: int) -> None:
    """Weights N(0, σ²) with the architecture's own σ, biases 0: a function of the seed and the shapes."""
    sigma = float(getattr(model.config, "initializer_range", 0.02) or 0.02)
    for place, name in enumerate(names):
        layer = model.get_submodule(name)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
        drawn = torch.randn(layer.weight.shape, generator=generator) * sigma
        layer.weight.copy_(drawn)
        if layer.bias is not None:
            layer.bias.zero_()


def _is_stored(name: str, stored: set[str]) -> bool:
    """Whether the files have it; a bare encoder's names lack the prefix that a classifier's have."""
    parts = name.split(".")
    return any(".".join(parts[start:]) in stored for start in range(min(2, len(parts))))
