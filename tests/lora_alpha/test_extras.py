"""A base installation: what it can do, and what it says where an extra is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from lora_alpha.errors import LoraAlphaError, MissingExtra
from lora_alpha.extras import EXTRAS, SERVER, TRAIN, require

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TORCH_FREE = ("wire", "importers", "analysis", "planning", "peft_format", "catalog")
TORCH_ROOMS = ("training", "models", "curvature", "dynamics", "workloads")

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *, without: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own where these modules are not installed."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(missing=set(without)) + code],
        cwd=ROOT,
        env={**os.environ, "LORA_ALPHA_HOME": os.devnull},  # a verb that starts after all cannot write
        capture_output=True,
        text=True,
        timeout=60,
    )


def verb(*words: str, without: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """One ``lora-alpha`` call where these modules are not installed."""
    code = f"sys.argv[1:] = {list(words)!r}\nfrom command_line import main\nmain()"
    return run(code, without=without)


def modules_of(*rooms: str) -> list[str]:
    files = sorted(file for room in rooms for file in (ROOT / room).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]


def test_the_torch_free_rooms_import_in_a_base_installation() -> None:
    rooms = [f"lora_alpha/{room}" for room in TORCH_FREE]
    names = [name.removesuffix(".__init__") for name in modules_of(*rooms)]
    assert len(names) > 30
    imports = "\n".join(f"import {name}" for name in [*names, "lora_alpha", "lora_alpha.trainer_callback"])
    done = run(f"{imports}\nfrom lora_alpha import Client", without=(*SERVER, *TRAIN, "starlette"))
    assert done.returncode == 0, done.stderr


def test_the_callback_imports_with_what_a_training_machine_has() -> None:
    done = run("from lora_alpha import LoraAlphaCallback", without=(*SERVER, "starlette"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help"], ["recommend", "--help"]])
def test_help_needs_no_extra(words: list[str]) -> None:
    done = verb(*words, without=(*SERVER, *TRAIN))
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_verb_of_the_client_needs_no_extra() -> None:
    nowhere = ["--api", "http://127.0.0.1:9"]
    done = verb("sweep", "--workload", "mlp", *nowhere, without=(*SERVER, *TRAIN))
    assert done.returncode == 2
    assert "127.0.0.1:9" in done.stderr
    assert "pip install" not in done.stderr


@pytest.mark.parametrize(
    ("words", "missing", "extra"),
    [
        (["demo", "--exit"], (*SERVER, *TRAIN), "all"),
        (["demo", "--exit"], TRAIN, "train"),
        (["up"], SERVER, "server"),
        (["api"], SERVER, "server"),
        (["dashboard"], SERVER, "server"),
        (["worker"], ("torch",), "train"),
        (["worker"], ("celery",), "server"),
        (["db", "upgrade"], ("sqlalchemy",), "server"),
    ],
)
def test_a_verb_names_the_extra_that_it_lacks(words: list[str], missing: tuple[str, ...], extra: str) -> None:
    done = verb(*words, without=missing)
    assert done.returncode == 2
    assert f'pip install "lora-alpha[{extra}]"' in done.stderr
    assert "lora-alpha " + " ".join(word for word in words if word != "--exit") in done.stderr
    assert all(name in done.stderr for name in missing)
    assert len(done.stderr.splitlines()) == 1, "one readable line, no traceback"


@pytest.mark.parametrize("room", TORCH_ROOMS)
def test_a_room_that_computes_with_torch_names_its_extra(room: str) -> None:
    done = run(f"import lora_alpha.{room}", without=TRAIN)
    said = done.stderr.splitlines()[-1]
    assert f"lora_alpha.{room} needs torch, " in said
    assert said.endswith('pip install "lora-alpha[train]"')


@pytest.mark.parametrize(
    ("name", "by"),
    [("lora_alpha.workloads.huggingface", "lora_alpha.workloads.huggingface"), ("", "LoraAlphaCallback")],
)
def test_what_needs_transformers_names_its_extra(name: str, by: str) -> None:
    code = f"import {name}" if name else f"from lora_alpha import {by}"
    done = run(code, without=("transformers",))
    assert f"{by} needs transformers" in done.stderr.splitlines()[-1]


def test_one_missing_module_is_an_import_error_of_this_project() -> None:
    with pytest.raises(MissingExtra, match="verb needs no_such_module") as caught:
        require("torch", "no_such_module", by="verb")
    assert isinstance(caught.value, LoraAlphaError)
    assert isinstance(caught.value, ImportError)


def test_the_modules_of_an_extra_are_those_of_its_distributions() -> None:
    installed: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            installed.setdefault(plain(distribution), set()).add(module)
    for extra, modules in EXTRAS.items():
        brought = [installed[name] for name in distributions_of(extra)]
        assert all(found & set(modules) for found in brought), f"{extra} has a distribution without a module"
        assert set(modules) <= set().union(*brought), f"{extra} does not bring one of its modules"


def test_the_base_declares_no_part_of_an_extra() -> None:
    base = {plain(requirement) for requirement in PROJECT["dependencies"]}
    assert {"numpy", "httpx", "pydantic", "safetensors"} <= base
    assert not base & (distributions_of("server") | distributions_of("train"))
    assert PROJECT["optional-dependencies"]["all"] == ["lora-alpha[server,train]"]


def test_the_constraints_pin_everything_that_is_declared() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "no host, no path, no local version"
    pinned = {plain(line) for line in lines}
    declared = {plain(requirement) for requirement in PROJECT["dependencies"]}
    for extra in ("server", "train", "test", "check"):
        declared |= distributions_of(extra)
    assert declared <= pinned
    assert "torchvision" not in pinned


def distributions_of(extra: str) -> set[str]:
    return {plain(requirement) for requirement in PROJECT["optional-dependencies"][extra]}


def plain(requirement: str) -> str:
    """The distribution's normalised name out of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
