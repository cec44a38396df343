"""Packages as pip would have installed them, for tests of entry points."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

EntryPoints = Mapping[str, Mapping[str, str]]


def write_package(folder: Path, name: str, modules: Mapping[str, str], offers: EntryPoints) -> None:
    """Modules and a ``dist-info`` in ``folder``, which must be on ``sys.path``.

    Args:
        folder: Where to write.
        name: The distribution's.
        modules: File name → source.
        offers: Group → name of the entry point → ``module:object``.
    """
    for file, source in modules.items():
        (folder / file).write_text(source)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, targets in offers.items():
        lines += [f"[{group}]", *(f"{offered} = {target}" for offered, target in targets.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


def write_page(folder: Path, page: Path) -> None:
    """The package that a page of the docs shows: its ``pyproject.toml``, and modules headed ``# name.py``."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    (project,) = [tomllib.loads(text)["project"] for kind, text in blocks if kind == "toml"]
    headed = [re.match(r"# (\w+\.py)\n", text) for kind, text in blocks if kind == "python"]
    modules = {match[1]: match.string for match in headed if match}
    write_package(folder, project["name"], modules, project["entry-points"])
