"""The science of LoRA scaling: adapters, packed training, curvature and law fitting."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_alpha.trainer_callback.trainer import LoraAlphaCallback
    from lora_alpha.wire.client import Client

__all__ = ["Client", "LoraAlphaCallback"]

# Imported when they are first asked for: the callback needs transformers, the client does not.
_ROOMS = {"Client": "lora_alpha.wire.client", "LoraAlphaCallback": "lora_alpha.trainer_callback.trainer"}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return getattr(importlib.import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'lora_alpha' has no attribute {name!r}")
