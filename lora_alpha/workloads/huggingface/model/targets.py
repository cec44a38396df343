"""Which layers of a transformers model get adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_alpha.catalog.huggingface_options import names_in
from lora_alpha.models.layout import check_layout
from lora_alpha.workloads.huggingface.problems import counted, problem

ALL_LINEAR = "all-linear"
NUM_QUOTED = 8
PROBE_EXAMPLES, PROBE_TOKENS = 3, 5


def linear_modules(model: nn.Module) -> list[str]:
    """Qualified names of every linear layer except the output layer, in the model's order.

    Heads other than a language model's (``score``, ``classifier``) are for the caller to leave out.
    """
    output = output_layer(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not output
    ]


def find_targets(model: nn.Module, targets: str, *, skipped: str = "") -> list[str]:
    """The layers that ``targets`` means.

    Args:
        model: The base.
        targets: ``all-linear``; names with commas between, each a layer's full name or the end of one at a
            dot; or a regular expression that matches full names.
        skipped: Regular expression on full names that no target may match (a fresh head), or "".

    Returns:
        Qualified names in the model's order.

    Raises:
        InvalidSpec: If a name or the expression matches no linear layer.
    """
    linear = [name for name in linear_modules(model) if not (skipped and re.fullmatch(skipped, name))]
    if targets.strip() == ALL_LINEAR:
        return linear
    names = names_in(targets)
    if not names:
        pattern = re.compile(targets)
        found = [name for name in linear if pattern.fullmatch(name)]
        if not found:
            raise problem("targets", f"the expression {targets!r} matches no linear layer: {_known(linear)}")
        return found
    output = next((name for name, module in model.named_modules() if module is output_layer(model)), None)
    if output is not None and any(_is(output, name) for name in names):
        raise problem(
            "targets",
            f"{output} is the output layer: its logits are made for the scored tokens alone, and it often is "
            "the embedding as well; leave it out",
        )
    unmatched = [name for name in names if not any(_is(layer, name) for layer in linear)]
    if unmatched:
        raise problem("targets", f"no linear layer is called {', '.join(unmatched)}: {_known(linear)}")
    return [layer for layer in linear if any(_is(layer, name) for name in names)]


def check_examples_stay_apart(model: nn.Module, targets: list[str]) -> None:
    """Refuse targets behind which a pack could not tell its configurations apart, by trying a few tokens.

    Raises:
        InvalidSpec: Naming the layers and what they get.
    """
    config: Any = model.config
    ids = torch.arange(PROBE_EXAMPLES * PROBE_TOKENS).view(PROBE_EXAMPLES, -1)
    ids = (ids * 5 + 1) % int(config.get_text_config().vocab_size)
    device = next(model.parameters()).device
    check_layout(
        model, targets, lambda order: model(input_ids=ids[order].to(device)), num_examples=PROBE_EXAMPLES
    )


def check_patterns(
    targets: list[str], rank_pattern: Mapping[str, int], alpha_pattern: Mapping[str, float]
) -> None:
    """Refuse patterns that match no target, by the rule of the engine: full names or their ends at a dot.

    Raises:
        InvalidSpec: Naming the pattern.
    """
    for option, patterns in (("rank_pattern", rank_pattern), ("alpha_pattern", alpha_pattern)):
        for pattern in patterns:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in targets):
                among = counted(len(targets), "target", "targets")
                raise problem(option, f"{pattern!r} matches none of the {among}: {_known(targets)}")


def output_layer(model: nn.Module) -> nn.Module | None:
    """The layer that makes logits of a language model, None where there is none."""
    getter = getattr(model, "get_output_embeddings", None)
    layer = getter() if callable(getter) else None
    return layer if isinstance(layer, nn.Module) else None


def _is(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _known(layers: list[str]) -> str:
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    return f"there are {', '.join(ends[:NUM_QUOTED])}" + (" and others" if len(ends) > NUM_QUOTED else "")
