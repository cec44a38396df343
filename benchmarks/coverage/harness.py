"""Replicates of worlds over processes; a file of readings for each world, which a killed run goes on from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from benchmarks.coverage.catalogue import ROOT
from benchmarks.coverage.readings import Reading, read
from benchmarks.coverage.routes import RouteWorld
from benchmarks.coverage.worlds import World

BLOCK = 10  # replicates that a process reads before it hands them over
PLANTING = ("shapes.py", "worlds.py", "routes.py", "readings.py")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def source_digest(root: Path = ROOT) -> str:
    """Names what is measured: the analysis and the planting, by their sources."""
    digest = hashlib.sha256()
    for folder in ("lora_alpha/analysis", "benchmarks/coverage"):
        for path in sorted((root / folder).glob("*.py")):
            if folder == "lora_alpha/analysis" or path.name in PLANTING:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_worlds(
    worlds: Sequence[World | RouteWorld],
    *,
    replicates: int,
    processes: int,
    out: Path,
    advance: Callable[[int], object],
) -> dict[str, list[Reading]]:
    """Read the replicates that the files in ``out`` lack; all of them, by world.

    Args:
        worlds: What to plant.
        replicates: Replicates of each world, numbered from 0.
        processes: Processes, each of one thread; 0 reads in this one.
        out: Folder of the files, made if need be.
        advance: Told how many more are done.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = {world.name: _resume(world, out) for world in worlds}
    blocks = []
    for first in range(0, replicates, BLOCK):
        for world in worlds:
            wanted = range(first, min(first + BLOCK, replicates))
            block = [replicate for replicate in wanted if replicate not in done[world.name]]
            advance(len(wanted) - len(block))
            if block:
                blocks.append((world, block))
    for world, readings in _read_blocks(blocks, processes):
        with _file(world, out).open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(reading, allow_nan=False)}\n" for reading in readings)
        done[world.name].update((reading["replicate"], reading) for reading in readings)
        advance(len(readings))
    return {
        name: [reading for replicate, reading in sorted(readings.items()) if replicate < replicates]
        for name, readings in done.items()
    }


def _read_blocks(
    blocks: Sequence[tuple[World | RouteWorld, list[int]]], processes: int
) -> Iterable[tuple[World | RouteWorld, list[Reading]]]:
    if not processes:
        yield from ((world, _read_block(world, block)) for world, block in blocks)
        return
    for name in THREADS:  # before the processes load numpy
        os.environ[name] = "1"
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_end_with_the_parent
    ) as pool:
        try:
            pending = {pool.submit(_read_block, world, block): world for world, block in blocks}
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_the_parent() -> None:
    """A killed parent leaves nobody behind."""

    def wait() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _read_block(world: World | RouteWorld, block: Sequence[int]) -> list[Reading]:
    return [read(world, replicate) for replicate in block]


def _file(world: World | RouteWorld, out: Path) -> Path:
    return out / f"{world.name.replace('/', '-')}.jsonl"


def _resume(world: World | RouteWorld, out: Path) -> dict[int, Reading]:
    """What a world's file holds; a line that a kill cut off is cut away, another world's file begun anew."""
    path, header = _file(world, out), f"{json.dumps({'world': repr(world)})}\n"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole[:1] != [header]:
        whole = [header]
    if whole != lines:
        path.write_text("".join(whole), encoding="utf-8")
    readings = [json.loads(line) for line in whole[1:]]
    return {reading["replicate"]: reading for reading in readings}
