"""The adapter that a sweep's runs start from, where its request names one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lora_alpha.interop.peft_import import find_folder, read_peft_folder


def read_start(name: str | None, *, roots: list[Path]) -> Mapping[str, Mapping[str, Tensor]] | None:
    """Layer → tensors of the adapter folder ``name``; None for None.

    Raises:
        InvalidSpec: If the folder is missing, outside the roots or no adapter to start from.
    """
    if name is None:
        return None
    adapter = read_peft_folder(find_folder(name, roots=roots))
    return {
        path: {kind: torch.from_numpy(array) for kind, array in parts.items()}
        for path, parts in adapter.layers.items()
    }
