"""Run a module's tests on a changed module, without touching a file.

Each trial is a fork of a process that has loaded the large libraries and none of our own code: the child's
import system answers for the module with the changed source, and pytest runs in the child. So trials are
quick, several may run at once on one tree, and nothing is left behind if one is killed. Subprocesses that a
test starts see the module unchanged.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import CodeType

import pytest

from tests.mutation.modules import ROOT

LARGE = (
    "numpy",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.stats",
    "torch._dynamo",
    "pydantic",
    "sqlalchemy.orm",
    "alembic.command",
    "fastapi",
    "starlette.testclient",
    "httpx",
    "psycopg",
    "redis",
    "pyarrow.parquet",
    "celery.app",
    "dateutil.tz",
    "pytest_timeout",
)
NO_TESTS = 5
# Assertions as Python has them: quicker, and nothing need be rewritten that is loaded already.
OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "--assert=plain"),
    *("-m", "not slow and not services and not browser and not gpu"),
)


@dataclass(frozen=True)
class Outcome:
    """``result`` is ``killed``, ``survived`` or ``timeout``; ``by`` the test that failed, where one did."""

    result: str
    by: str
    seconds: float


class _Changed(importlib.abc.MetaPathFinder):
    """Answers for one module."""

    def __init__(self, module: str, source: str) -> None:
        self.name = module.removesuffix(".py").replace("/", ".")
        self.path = str(ROOT / module)
        self.source = source

    def find_spec(self, fullname: str, path: object, target: object = None) -> object:
        if fullname != self.name:
            return None
        loader = _Loader(fullname, self.path)
        loader.source = self.source
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    source = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _FirstFailure:
    """A pytest plugin that keeps the name of the test that failed."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.name = self.name or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.name = self.name or report.nodeid


def load_large_libraries() -> None:
    """What every child would otherwise load again."""
    # Plugins that our settings name, and no other: the others take longer than most tests here.
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in LARGE:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # or each child would go through all of it


def attempt(
    module: str, sources: Iterable[tuple[str, str]], tests: Sequence[str], *, jobs: int, limit_s: float
) -> Iterator[tuple[str, Outcome]]:
    """Run ``tests`` with each of ``sources`` (name, source) in the place of ``module``, ``jobs`` at a time.

    Yields:
        Name and outcome, in the order in which they end.

    Raises:
        SystemExit: If the tests' path holds no test.
    """
    waiting, running = iter(sources), dict[int, _Child]()
    while True:
        for name, source in islice(waiting, jobs - len(running)):
            child = _start(name, module, source, tests)
            running[child.reader] = child
        if not running:
            return
        ready, _, _ = select.select(list(running), [], [], 0.2)
        for child in list(running.values()):
            seconds = time.monotonic() - child.started
            if child.reader in ready or seconds > limit_s:
                said = os.read(child.reader, 65536).decode() if child.reader in ready else ""
                _end(child)
                del running[child.reader]
                yield child.name, _outcome(said, seconds, tests)


@dataclass(frozen=True)
class _Child:
    name: str
    process: int
    reader: int
    started: float


def _start(name: str, module: str, source: str, tests: Sequence[str]) -> _Child:
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        _run(module, source, tests, writer)
    os.close(writer)
    return _Child(name, process, reader, time.monotonic())


def _end(child: _Child) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.process, signal.SIGKILL)  # what its tests may have left running, too
    os.waitpid(child.process, 0)
    os.close(child.reader)


def _outcome(said: str, seconds: float, tests: Sequence[str]) -> Outcome:
    code, _, by = said.partition(" ")
    if code == str(NO_TESTS):
        raise SystemExit(f"{' '.join(tests)}: no test")
    return Outcome({"": "timeout", "0": "survived"}.get(code, "killed"), by, seconds)


def _run(module: str, source: str, tests: Sequence[str], writer: int) -> None:
    """The child's life: ends the process."""
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    code, failure = 1, _FirstFailure()
    try:
        sys.meta_path.insert(0, _Changed(module, source))
        code = int(pytest.main([*OPTIONS, *(str(ROOT / test) for test in tests)], plugins=[failure]))
    finally:
        os.write(writer, f"{code} {failure.name}".encode())
        os._exit(0)


def digest_of_tests(tests: Sequence[str]) -> str:
    """Changes whenever one of the files ``tests``, or a file beside or above it that it may use, changes."""
    files = {ROOT / test for test in tests}
    return _digest(_support(files) | {str(file): file.read_text() for file in files})


def digest_of_test(name: str) -> str:
    """The same for one test, ``file::function[case]``: other tests of its file do not matter."""
    file, _, function = name.partition("::")
    path, function = ROOT / file, function.partition("[")[0]
    if not path.exists():
        return ""
    text = path.read_text()
    kept = [
        ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and node.name != function)
    ]
    return _digest(_support({path}) | {file: "\n".join(kept)})


def _support(files: set[Path]) -> dict[str, str]:
    """The files beside and above ``files`` that hold no tests: fixtures, planted data."""
    folders = {folder for file in files for folder in file.parents if ROOT in folder.parents}
    found = {path for folder in folders for path in folder.glob("*.py") if not path.name.startswith("test_")}
    return {str(path): path.read_text() for path in found}


def _digest(texts: dict[str, str]) -> str:
    return hashlib.sha256("\0".join(texts[name] for name in sorted(texts)).encode()).hexdigest()[:16]
