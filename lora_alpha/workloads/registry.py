"""Name → workload. Implementations are imported when they are asked for."""

from __future__ import annotations

import importlib
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


def load_workload(name: str, options: dict[str, Any]) -> Workload:
    """The workload ``name`` with ``options`` laid over its defaults; nothing costly happens here.

    Raises:
        InvalidSpec: If the name is unknown or an option is invalid.
    """
    info = workload_info(name)
    try:
        parsed = info.options.model_validate(options)
    except ValidationError as error:
        raise InvalidSpec(problems_from(error, prefix="workload_options")) from None
    module, _, attribute = _IMPLEMENTATIONS[name].partition(":")
    workload: Workload = getattr(importlib.import_module(module), attribute)(parsed)
    return workload
