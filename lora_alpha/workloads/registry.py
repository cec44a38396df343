"""Name → workload. Implementations are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.resolve import problems_from
from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.base import Workload

_IMPLEMENTATIONS = {
    "mlp": "lora_alpha.workloads.mlp:MlpWorkload",
    "digits": "lora_alpha.workloads.digits:DigitsWorkload",
    "charlm": "lora_alpha.workloads.charlm:CharLMWorkload",
    "carry": "lora_alpha.workloads.carry:CarryWorkload",
    "mod-rl": "lora_alpha.workloads.mod_rl:ModRLWorkload",
    "clip": "lora_alpha.workloads.clip:ClipWorkload",
}
# On files of the user's own: these are told which folders they may read.
_ON_FILES = {
    "hf-sft": "lora_alpha.workloads.huggingface.sft:SFTWorkload",
    "hf-reasoning-sft": "lora_alpha.workloads.huggingface.sft:ReasoningSFTWorkload",
    "hf-classify": "lora_alpha.workloads.huggingface.classification:ClassificationWorkload",
    "hf-clip": "lora_alpha.workloads.huggingface.dual_encoder:DualEncoderWorkload",
    "hf-rl": "lora_alpha.workloads.huggingface.rl:RLWorkload",
}


def load_workload(name: str, options: dict[str, Any], *, roots: Sequence[Path] | None = None) -> Workload:
    """The workload ``name`` with ``options`` laid over its defaults; nothing costly happens here.

    Args:
        name: Of the catalogue.
        options: What differs from the defaults.
        roots: Folders that local models and data may come from; None: anywhere, for a caller that trains in
            its own process. A service hands in its allowed roots.

    Raises:
        InvalidSpec: If the name is unknown or an option is invalid.
    """
    info = workload_info(name)
    try:
        parsed = info.options.model_validate(options)
    except ValidationError as error:
        raise InvalidSpec(problems_from(error, prefix="workload_options")) from None
    place = _IMPLEMENTATIONS.get(name) or _ON_FILES[name]
    module, _, attribute = place.partition(":")
    implementation = getattr(importlib.import_module(module), attribute)
    workload: Workload = implementation(parsed, roots=roots) if name in _ON_FILES else implementation(parsed)
    return workload
