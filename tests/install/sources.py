"""A copy of what is needed to build the package, so that building leaves nothing in the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("lora_alpha", "backend", "workers", "dashboard", "command_line")


def copy_sources(folder: Path) -> Path:
    """Packages and packaging files in ``folder``; returns it."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def files_of_packages() -> set[str]:
    """Every file of the packages, relative to the root."""
    return {
        str(file.relative_to(ROOT))
        for name in PACKAGES
        for file in (ROOT / name).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
