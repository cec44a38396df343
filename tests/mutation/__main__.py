"""Which small changes of a module do its tests not notice? ``python -m tests.mutation --help``."""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import json
import sys
import textwrap
import time
from collections import Counter
from typing import Any

from tests.mutation.modules import GUARDED, ROOT, WITH_CONSTANTS, found, tests_of
from tests.mutation.mutants import Mutant, diff, of_constants, of_functions
from tests.mutation.trial import Outcome, attempt, digest_of_test, digest_of_tests, load_large_libraries

RESULTS = ROOT / ".mutation" / "results.jsonl"
# A change may make a loop endless; a test that only became slower is given this much room.
ROOM = 5.0
ROOM_S = 10.0


def main() -> int:
    """Try what has no result yet, then print a line a module and the changes that nobody noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="paths; all guarded ones unless given")
    parser.add_argument("--constants", action="store_true", help="numbers of module constants instead")
    parser.add_argument(
        "--minutes", type=float, default=None, help="stop after this long; run again to go on"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--every", type=int, default=1, help="only each n-th change: an estimate")
    parser.add_argument("--report", action="store_true", help="try nothing, print what is known")
    arguments = parser.parse_args()
    modules = arguments.modules or found(WITH_CONSTANTS if arguments.constants else GUARDED)
    deadline = time.monotonic() + 60 * (arguments.minutes or 1e9)
    if not arguments.report:
        load_large_libraries()
    incomplete = [
        module for module in modules if not _module(module, arguments, 0.0 if arguments.report else deadline)
    ]
    if incomplete and not arguments.report:
        _say(f"time is up: run again for the rest of {', '.join(incomplete)}")
    return 0


def _module(module: str, arguments: argparse.Namespace, deadline: float) -> bool:
    source = (ROOT / module).read_text()
    mutants = list((of_constants if arguments.constants else of_functions)(source))
    counted = [mutant for mutant in mutants if not mutant.message][:: arguments.every]
    if not counted:
        return True
    tests = tests_of(module)
    if not tests:
        _say(f"{module}: {len(counted)} changes and no test that mirrors its path")
        return True
    known = _Known(module, source, tests)
    missing = [mutant for mutant in counted if known.get(mutant) is None]
    if missing and time.monotonic() < deadline:
        ((_, plain),) = attempt(module, [("", source)], tests, jobs=1, limit_s=600)
        if plain.result != "survived":
            sys.exit(f"{module}: {plain.by or 'its tests'} fails without any change")
        todo = ((m.name, m.write()) for m in missing if time.monotonic() < deadline)
        limit_s = ROOM_S + ROOM * plain.seconds
        for name, outcome in attempt(module, todo, tests, jobs=arguments.jobs, limit_s=limit_s):
            known.add(name, outcome)
    _report(module, source, counted, known, words=sum(mutant.message for mutant in mutants))
    return all(known.get(mutant) is not None for mutant in counted)


def _report(module: str, source: str, counted: list[Mutant], known: _Known, *, words: int) -> None:
    results = Counter(known.get(mutant) for mutant in counted)
    noticed, tried = results["killed"] + results["timeout"], len(counted) - results[None]
    share = f"{noticed / tried:.1%}" if tried else "-"
    _say(f"{module}: {noticed} of {tried} noticed, {share}; {results[None]} not tried, {words} of words only")
    for mutant in counted:
        if known.get(mutant) == "survived":
            _say(textwrap.indent(f"{mutant.name}\n{diff(source, mutant.write())}", "  "))


class _Known:
    """Results of one module: a line of JSON each, appended under a lock, valid for one source and its tests.

    A change that was noticed stays noticed while the test that did so is the same; one that was not is tried
    again when any test changes.
    """

    def __init__(self, module: str, source: str, tests: list[str]) -> None:
        self.module = module
        self.source = hashlib.sha256(source.encode()).hexdigest()[:16]
        self.tests = digest_of_tests(tests)
        self.found: dict[str, str] = {}
        digest = functools.cache(digest_of_test)
        for line in RESULTS.read_text().splitlines() if RESULTS.exists() else []:
            item: dict[str, Any] = json.loads(line)
            if (item["module"], item["source"]) != (module, self.source):
                continue
            by = item["by"]
            if item["tests"] == (digest(by) if by else self.tests):
                self.found[item["mutant"]] = item["result"]

    def get(self, mutant: Mutant) -> str | None:
        return self.found.get(mutant.name)

    def add(self, mutant: str, outcome: Outcome) -> None:
        item = {
            "module": self.module,
            "source": self.source,
            "mutant": mutant,
            "result": outcome.result,
            "by": outcome.by,
            "tests": digest_of_test(outcome.by) if outcome.by else self.tests,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file_of_results:
            fcntl.flock(file_of_results, fcntl.LOCK_EX)
            file_of_results.write(json.dumps(item, ensure_ascii=False) + "\n")
        self.found[mutant] = outcome.result


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
