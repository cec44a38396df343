"""The adapter that a sweep's runs start from, where its request names one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from backend.settings import Settings
from lora_alpha.peft_format.read import find_folder, read_peft_folder


def read_init_adapter(name: str | None, *, settings: Settings) -> Mapping[str, Mapping[str, Tensor]] | None:
    """Layer → tensors of the kept adapter ``name``; None for None.

    Raises:
        InvalidSpec: If it is gone.
    """
    if name is None:
        return None
    adapter = read_peft_folder(find_folder(name, roots=[settings.files.init_adapters]))
    return {
        path: {kind: torch.from_numpy(array) for kind, array in parts.items()}
        for path, parts in adapter.layers.items()
    }
