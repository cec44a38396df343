"""Which packages the stages need, and which of them are not installed."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
ENGINE = ("torch", "numpy", "scipy", "pydantic", "safetensors")
# Neither PostgreSQL and Redis nor data files: those of pyproject.toml that this benchmark can do without.
APPLICATION = (
    *ENGINE,
    *("fastapi", "uvicorn", "pydantic-settings", "httpx", "sqlalchemy", "alembic", "celery", "kombu"),
    *("dash", "plotly", "dash-mantine-components", "dash-iconify", "dash-ag-grid", "tsdownsample"),
    *("typer", "rich", "pyyaml"),
    "lora-alpha",  # itself: the service tells its version
)
TESTS = (*ENGINE, "pytest", "pytest-timeout", "transformers", "peft")
PACKING = (*ENGINE, "transformers", "peft")


def missing(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are not installed, in alphabetical order."""
    return sorted(name for name in names if version(name) is None)


def version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pip_lines(names: Iterable[str], *, project: Path = PROJECT) -> list[str]:
    """The commands that install ``names``, in the versions that the project asks for.

    The project itself comes without what it depends on: an installed torch stays as it is.
    """
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = declared.get("optional-dependencies", {}).values()
    requirements = [line for group in (declared["dependencies"], *extras) for line in group]
    # "dash[fastapi]>=4.4,<5" is the requirement of dash.
    by_name = {re.split(r"[^\w.-]", line)[0].lower(): line for line in requirements}
    names = list(names)
    others = [by_name.get(name, name) for name in names if name != declared["name"]]
    lines = [shlex.join(["pip", "install", *others])] if others else []
    if declared["name"] in names:
        lines.append(f"pip install --no-deps --editable {shlex.quote(str(project.parent))}")
    return lines
