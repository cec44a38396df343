"""Wheel and source distribution, installed into environments that have nothing else.

pip fetches what they need from wherever it is set to; ``PIP_ARGS`` is passed to it, as the Makefile does.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from lora_alpha.extras import EXTRAS
from tests.install.sources import ROOT, copy_sources

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOMS = ("wire", "importers", "analysis", "planning", "peft_format", "catalog")
IMPORT_ROOMS = f"""
import importlib, pkgutil, sys
import lora_alpha, lora_alpha.trainer_callback
from lora_alpha import Client
for room in {ROOMS!r}:
    package = importlib.import_module(f"lora_alpha.{{room}}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(lora_alpha.__file__)
"""


class Environment:
    """A new virtual environment; it is deleted on leaving, since pytest would keep gigabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        venv.create(self.folder, with_pip=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)

    def run(self, program: str, *words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A program of the environment, outside the checkout and without its modules on the path."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["LORA_ALPHA_HOME"] = str(home or self.folder / "home")
        return subprocess.run(
            [str(self.folder / "bin" / program), *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    def install(self, *words: str) -> None:
        """``pip install`` of these, with the versions that are pinned."""
        given = shlex.split(os.environ.get("PIP_ARGS", ""))
        pinned = ["--constraint", str(ROOT / "constraints.txt")]
        done = self.run("python", "-m", "pip", "install", "--quiet", *given, *pinned, *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def distributions(self) -> set[str]:
        """Names of what is installed."""
        listed = self.run("python", "-m", "pip", "list", "--format=json")
        return {entry["name"].lower().replace("_", "-") for entry in json.loads(listed.stdout)}

    def files(self) -> set[str]:
        """Files that this project installed."""
        shown = self.run("python", "-m", "pip", "show", "--files", "lora-alpha").stdout.partition("Files:")[2]
        return {
            line.strip() for line in shown.splitlines() if ".dist-info" not in line and ".pyc" not in line
        }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with both distributions; the wheel is built from the source distribution."""
    sources = copy_sources(tmp_path_factory.mktemp("sources"))
    with Environment(tmp_path_factory.mktemp("builder")) as builder:
        builder.install("build")
        done = builder.run("python", "-m", "build", "--outdir", str(sources / "dist"), str(sources))
    assert done.returncode == 0, done.stdout + done.stderr
    return sources / "dist"


@pytest.fixture(scope="module")
def base(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An environment with the base alone."""
    with Environment(tmp_path_factory.mktemp("base")) as environment:
        environment.install(*map(str, built.glob("*.whl")))
        yield environment


def test_the_base_brings_no_torch_and_no_server(base: Environment) -> None:
    brought = base.distributions()
    assert "lora-alpha" in brought
    assert not brought & {"torch", "transformers", "fastapi", "starlette", "sqlalchemy", "celery", "dash"}
    for modules in EXTRAS.values():
        for module in modules:
            assert base.run("python", "-c", f"import {module}").returncode != 0, module


def test_client_importers_and_analysis_import_from_the_base(base: Environment) -> None:
    done = base.run("python", "-c", IMPORT_ROOMS)
    assert done.returncode == 0, done.stderr
    assert str(base.folder) in done.stdout, "not the installed package"


def test_the_program_of_the_base_helps_and_names_the_extra_of_the_demo(base: Environment) -> None:
    helped = base.run("lora-alpha", "--help")
    assert (helped.returncode, "demo" in helped.stdout) == (0, True), helped.stderr
    refused = base.run("lora-alpha", "demo", "--exit")
    assert refused.returncode == 2
    assert 'pip install "lora-alpha[all]"' in refused.stderr
    callback = base.run("python", "-c", "from lora_alpha import LoraAlphaCallback")
    assert 'pip install "lora-alpha[train]"' in callback.stderr


def test_the_source_distribution_installs_the_same_files(base: Environment, built: Path) -> None:
    from_wheel = base.files()
    assert len(from_wheel) > 200
    base.install("--force-reinstall", "--no-deps", *map(str, built.glob("*.tar.gz")))
    assert base.files() == from_wheel


def test_the_demo_runs_from_the_wheel_with_all_extras(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    out, home = tmp_path / "out", tmp_path / "home"
    with Environment(tmp_path / "all") as environment:
        environment.install(f"{wheel}[all]")
        done = environment.run("lora-alpha", "demo", "--exit", "--port", "0", "--out", str(out), home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "α* = C·r^p" in done.stdout
    assert len((out / "runs.csv").read_text().splitlines()) > 100
