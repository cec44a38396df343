"""The science of LoRA scaling: adapters, packed training, curvature and law fitting."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lora_alpha.extras import require

if TYPE_CHECKING:
    from lora_alpha.trainer_callback.trainer import LoraAlphaCallback
    from lora_alpha.wire.client import Client

__all__ = ["Client", "LoraAlphaCallback"]

# Imported when they are first asked for: name → module, and what its users must have beside the base.
_ROOMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Client": ("lora_alpha.wire.client", ()),
    "LoraAlphaCallback": ("lora_alpha.trainer_callback.trainer", ("torch", "transformers")),
}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'lora_alpha' has no attribute {name!r}")
    module, needed = _ROOMS[name]
    require(*needed, by=name)
    return getattr(importlib.import_module(module), name)
