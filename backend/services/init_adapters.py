"""The adapter that a sweep starts from: checked and kept when the sweep is made.

A copy under ``home/init_adapters`` is named by its content, so that every run of the sweep, a retry next
month included, starts from the same adapter whatever becomes of the user's folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from backend.settings import Settings
from lora_alpha.peft_format.export import CONFIG_FILE, WEIGHTS_FILE
from lora_alpha.peft_format.read import check_sweep, find_folder, read_peft_folder
from lora_alpha.spec import SweepSpec


def check(spec: SweepSpec, settings: Settings) -> None:
    """Whether the runs of ``spec`` can start from the adapter that it names, if it names one.

    Raises:
        InvalidSpec: If the folder is missing, not allowed or no such adapter, or does not fit the runs.
    """
    if spec.train.init_adapter is not None:
        check_sweep(read_peft_folder(_find(spec.train.init_adapter, settings)), spec)


def keep(spec: SweepSpec, settings: Settings) -> SweepSpec:
    """``spec`` with the adapter's own copy in place of the user's folder.

    Raises:
        InvalidSpec: As ``check``.
    """
    if spec.train.init_adapter is None:
        return spec
    check(spec, settings)
    folder = _find(spec.train.init_adapter, settings)
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    kept = settings.files.init_adapters / digest.hexdigest()[:24]
    if not kept.exists():
        temporary = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
        temporary.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(folder / name, temporary / name)
        try:
            temporary.rename(kept)
        except OSError:  # another request has just kept the same
            shutil.rmtree(temporary)
    return spec.model_copy(update={"train": spec.train.model_copy(update={"init_adapter": kept.name})})


def _find(name: str, settings: Settings) -> Path:
    return find_folder(name, roots=[*settings.roots, settings.files.init_adapters])
