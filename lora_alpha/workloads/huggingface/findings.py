"""What an inspection finds of a model folder and a corpus, before any run is queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lora_alpha.workloads.huggingface.model.loading import read_config, weight_files
from lora_alpha.workloads.huggingface.model.targets import check_patterns, find_targets
from lora_alpha.workloads.huggingface.problems import counted, problem
from lora_alpha.workloads.inspection import describe_model

# Weights up to this size are read in full, which finds everything that can be wrong with them in seconds.
READ_BYTES = 2 * 2**30
FEW_HELD_OUT = 20


def model_findings(folder: Path, auto_class: Any, *, options: Any, skipped: str = "") -> dict[str, Any]:
    """Architecture, parameters and targets, from a model without weights (the meta device).

    Args:
        folder: A checked model folder.
        auto_class: transformers' class that picks the architecture.
        options: ``ModelOptions``.
        skipped: As for ``find_targets``.

    Raises:
        InvalidSpec: If the architecture, a target or a pattern does not fit, or a weights file is damaged.
    """
    config = read_config(folder)
    try:
        with torch.device("meta"):
            model = auto_class.from_config(config)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise problem("model", f"a {config.model_type} model cannot do this task: {reason}") from error
    targets = find_targets(model, options.targets, skipped=skipped)
    check_patterns(targets, options.rank_pattern, options.alpha_pattern)
    sizes = [check_weights(path) for path in weight_files(folder)]
    return {
        "model": str(folder),
        "architecture": type(model).__name__,
        **describe_model(model, targets),
        "weights_bytes": sum(sizes),
    }


def check_weights(path: Path) -> int:
    """Size of a safetensors file in bytes, once its header fits its length.

    Raises:
        InvalidSpec: If it does not: a copy that was cut short.
    """
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise problem("model", f"{path} is damaged ({error}): copy it again") from error
    return path.stat().st_size


def data_warnings(
    facts: dict[str, Any], *, max_tokens: int, example: tuple[str, str], text: tuple[str, str]
) -> list[str]:
    """What is allowed of the data but should be known.

    Args:
        facts: About them.
        max_tokens: Where examples are cut.
        example: What an example is called, one and many.
        text: What is cut of it, one and many.
    """
    warnings = []
    one, many = example
    if facts["num_truncated"]:
        number, longest = facts["num_truncated"], facts["tokens_max"]
        total = counted(facts["num_train"] + facts["num_held_out"], *text)
        are, lose = ("is", "loses its end") if number == 1 else ("are", "lose their end")
        shown = f" (the longest has {longest:,} tokens)" if longest > max_tokens else ""
        warnings.append(
            f"{number:,} of {total} {are} longer than max_tokens = {max_tokens} and {lose}{shown}"
        )
    if facts.get("num_dropped"):
        left_out = counted(facts["num_dropped"], f"{one} is left out", f"{many} are left out")
        warnings.append(
            f"{left_out}: either the prompt leaves no room within max_tokens = {max_tokens}, or there is "
            "nothing to learn"
        )
    if facts.get("num_shared"):
        shared = counted(facts["num_shared"], f"held-out {one} is", f"held-out {many} are")
        warnings.append(f"{shared} trained on as well: the held-out loss will flatter")
    if facts["num_held_out"] < FEW_HELD_OUT:
        held_out = counted(facts["num_held_out"], f"{one} is held out", f"{many} are held out")
        warnings.append(
            f"only {held_out}: differences between runs may be noise; hold out more, or give test_data"
        )
    return warnings
