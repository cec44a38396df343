"""Writes docs/tree.md: one line per file, from what each file says of itself in its first line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tree.md"
HEADING = "# The tree\n\nEvery file in one line; `make tree` writes this page.\n\n"
# Files that cannot say it themselves.
SAID_HERE = {
    ".ci/run": "what decides whether a change lands",
    ".dockerignore": "what stays out of the image",
    ".gitignore": "what stays out of the repository",
    ".pre-commit-config.yaml": "the checks before a commit",
    "LICENSE": "Apache License 2.0",
    "Makefile": "demo, up, the tests, check, format, bench, tree, constraints",
    "Dockerfile": "one image for every role",
    "docker-compose.yml": "a team's installation: API, dashboard, workers, Redis, PostgreSQL",
    "constraints.txt": "the versions that the tests run with",
    "pyproject.toml": "dependencies and the settings of every tool",
    "README.md": "what it answers, how to start it, where to look next",
    "CITATION.cff": "how to cite",
}
KINDS = {
    ".svg": "drawing",
    ".png": "screenshot",
    ".css": "styles",
    ".js": "script",
    ".json": "recorded values",
}


def main() -> None:
    """Rewrite the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page as it should be."""
    return f"{HEADING}```\n{tree()}```\n"


def tree() -> str:
    """The tree of every tracked or trackable file, as text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = sorted({Path(name) for name in listed if name and (ROOT / name).exists()}, key=_order)
    lines: list[str] = []
    shown: set[Path] = set()
    for file in files:
        for folder in reversed(file.parents[:-1]):
            if folder not in shown:
                shown.add(folder)
                lines.append(f"{'  ' * (len(folder.parts) - 1)}{folder.name}/")
        lines.append(f"{'  ' * (len(file.parts) - 1)}{file.name:<28} {describe(file)}".rstrip())
    return "\n".join(lines) + "\n"


def describe(file: Path) -> str:
    """What a file says of itself, in one line."""
    if str(file) in SAID_HERE:
        return SAID_HERE[str(file)]
    if file.suffix == ".py":
        said = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if said:
            return said.splitlines()[0].rstrip(".").replace("``", "")
        return "shared fixtures" if file.name == "conftest.py" else f"tests of {_subject(file)}"
    if file.suffix == ".md":
        heading = (ROOT / file).read_text(encoding="utf-8").partition("\n")[0]
        return re.sub(r"^#+\s*", "", heading)
    return KINDS.get(file.suffix, "")


def _subject(file: Path) -> str:
    return file.stem.removeprefix("test_").replace("_", " ")


def _order(file: Path) -> tuple[tuple[bool, str], ...]:
    """Folders before files, each by name."""
    return tuple((index == len(file.parts) - 1, part) for index, part in enumerate(file.parts))


if __name__ == "__main__":
    sys.exit(main())
