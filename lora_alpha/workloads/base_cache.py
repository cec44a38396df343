"""Pre-trained bases on disk, named by what made them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_alpha.workloads.base import Progress


def content_key(recipe: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of the recipe and the torch version.

    >>> content_key({"steps": 1}) == content_key({"steps": 2})
    False
    """
    text = json.dumps({**recipe, "torch": torch.__version__.split("+")[0]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached_base(
    cache_dir: Path,
    *,
    name: str,
    recipe: Mapping[str, Any],
    make: Callable[[], nn.Module],
    train: Callable[[nn.Module], Iterator[Progress]],
) -> Generator[Progress, None, dict[str, Tensor]]:
    """The state dict of a base: read from the cache, or made, stored and returned.

    The file ``bases/<name>-<key>.safetensors`` carries its recipe and the Python version as metadata. It
    appears by rename, so that a reader never sees half of it and two makers at once do no harm; an unreadable
    file is made anew.

    Args:
        cache_dir: Folder of all caches.
        name: Workload name.
        recipe: JSON-able description of network, data and training; equal recipes share a base.
        make: Builds the untrained network from ``torch``'s global generator, which is seeded with the
            recipe's ``seed`` (0 where it has none) and restored afterwards.
        train: Trains the network in place, yielding progress.

    Returns:
        Tensors on the CPU by parameter name (as the generator's return value).
    """
    path = cache_dir / "bases" / f"{name}-{content_key(recipe)}.safetensors"
    if path.exists():
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(recipe.get("seed", 0)))
        model = make()
    yield from train(model)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    metadata = {"recipe": json.dumps(dict(recipe), sort_keys=True), "python": platform.python_version()}
    save_file(state, temporary, metadata=metadata)
    temporary.replace(path)
    return state
