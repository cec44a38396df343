"""What wheel and source distribution hold and declare."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.install.sources import PACKAGES, ROOT, copy_sources, files_of_packages

BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # the calls below replace it
build_meta.build_sdist(out)
build_meta.build_wheel(out)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel and the source distribution."""
    out = tmp_path_factory.mktemp("built")
    sources = copy_sources(tmp_path_factory.mktemp("sources"))
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=sources, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files_of_packages()


def test_the_source_distribution_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files_of_packages() | {"pyproject.toml", "README.md", "LICENSE"} <= held


def test_the_base_wheel_asks_for_neither_torch_nor_a_server(metadata: Message) -> None:
    requirements = [str(line) for line in metadata.get_all("Requires-Dist", [])]
    base = " ".join(line for line in requirements if "extra ==" not in line)
    assert "numpy" in base
    for name in ("torch", "transformers", "fastapi", "dash", "sqlalchemy", "celery", "redis", "plotly"):
        assert name not in base.lower()
        assert any(line.lower().startswith(name) and "extra ==" in line for line in requirements), name


def test_its_extras_and_its_program_are_named(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert {"server", "train", "all"} <= set(metadata.get_all("Provides-Extra", []))
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "lora-alpha = command_line:main" in wheel.read(name).decode()


def test_image_and_package_are_made_of_the_same_folders() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]}
    assert set(PACKAGES) | {"constraints.txt"} <= copied
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert {name.rstrip("*") for name in found["include"]} == set(PACKAGES)
