"""Do the intervals of the analysis cover what they promise? Planted worlds, read as a sweep is read.

``python -m benchmarks coverage`` reads 100 replicates of every world (``catalogue.py``) in at most 5 minutes
on two cores, ``--full`` 1,000 in at most 90. Readings lie in a folder that is named by the sources of the
analysis and of the worlds; a killed run goes on from there, and a full one from a quick one. ``--write-docs``
writes ``docs/coverage.md``; ``--keep-as-before`` keeps the counts as those that later ones are compared with.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.coverage.catalogue import ROOT, estimator_commit, worlds_of
from benchmarks.coverage.harness import read_worlds, source_digest
from benchmarks.coverage.report import before_of, read_before, report, wanted_lines, write_before

QUICK, FULL = 100, 1000
DOCUMENT = ROOT / "docs" / "coverage.md"


def main(arguments: Sequence[str] = ()) -> int:
    """Read what is missing, print what is wanted and met; 2 where no world has that name."""
    options = _parser().parse_args(arguments)
    commit = options.commit or estimator_commit()
    worlds = [world for world in worlds_of(commit) if fnmatch(world.name, options.worlds)]
    if not worlds:
        print(f"no world is called {options.worlds!r}; there are:")
        print(*(world.name for world in worlds_of(commit)), sep="\n")
        return 2
    replicates = options.replicates or (FULL if options.full else QUICK)
    out = options.out or ROOT / "build" / "coverage" / source_digest()
    started = time.monotonic()
    with _progress() as progress:
        task = progress.add_task("replicates", total=replicates * len(worlds))
        readings = read_worlds(
            worlds,
            replicates=replicates,
            processes=options.processes,
            out=out,
            advance=lambda number: progress.advance(task, number),
        )
    title = f"Estimator of commit {commit[:12]}; {replicates} replicates of {len(worlds)} worlds."
    before = read_before()
    text = report(worlds, readings, before, title=title)
    (out / "report.md").write_text(text, encoding="utf-8")
    print(title, *wanted_lines(worlds, readings, before), sep="\n")
    print(f"{time.monotonic() - started:.0f} s; every count is in {out / 'report.md'}")
    if options.write_docs:
        DOCUMENT.write_text(text, encoding="utf-8")
    if options.keep_as_before:
        write_before(before_of(worlds, readings))
    return 0


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks coverage", description="Coverage of intervals on planted worlds."
    )
    parser.add_argument("--full", action="store_true", help=f"{FULL} replicates of each world, not {QUICK}")
    parser.add_argument("--replicates", type=int, help="replicates of each world")
    parser.add_argument("--worlds", default="*", help="a pattern of names, such as 'kink*'")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="processes; 0 for none beside"
    )
    parser.add_argument("--commit", help="the commit that draws ten worlds; the estimator's own")
    parser.add_argument("--out", type=Path, help="folder of the readings")
    parser.add_argument("--write-docs", action="store_true", help="write docs/coverage.md")
    parser.add_argument("--keep-as-before", action="store_true", help="keep the counts for later comparison")
    return parser
