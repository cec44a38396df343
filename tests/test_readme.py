"""What the README says is there, is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")]


def test_the_tree_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("tree", ROOT / "docs" / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    tree = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tree)
    assert (ROOT / "docs" / "tree.md").read_text() == tree.page(), "run `make tree`"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 7_500, "details belong to docs/"


def test_the_files_that_the_readme_leads_into_exist() -> None:
    dive = (ROOT / "README.md").read_text().partition("## Dive into the code")[2].partition("\n## ")[0]
    files = re.findall(r"\[`([^`]+)`\]", dive)
    assert len(files) == 5
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in ("demo", "test", "test-all", "up", "check", "tree"):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
