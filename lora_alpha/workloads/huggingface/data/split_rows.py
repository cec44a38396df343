"""A data set on its two sides, whatever a row means to the task: found, divided, described and cached.

The split does not depend on any seed: without a held-out file a row is held out where the hash of what is
read of it falls into the wanted share, so equal rows never stand on both sides and a longer file keeps its
split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lora_alpha.catalog.huggingface_options import DataOptions
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.sources import Roots, data_path
from lora_alpha.workloads.huggingface.data.tables import (
    DataFiles,
    Row,
    Table,
    file_digest,
    read_table,
    split_files,
)
from lora_alpha.workloads.huggingface.data.tokens import BLOCK, Making, cached_tokens, tokenizer_digest
from lora_alpha.workloads.huggingface.problems import counted, problem

Item = TypeVar("Item")


@dataclass(frozen=True)
class Split(Generic[Item]):
    """Both sides in the files' order, the columns of the training files, and what was held out."""

    train: list[Item]
    held_out: list[Item]
    columns: tuple[str, ...]
    how: str

    def blocks(self) -> Iterator[tuple[str, list[Item], Progress]]:
        """The rows of ``train`` and of ``held_out`` in blocks, each with where its end stands."""
        total = len(self.train) + len(self.held_out)
        done = 0
        for side, rows in (("train", self.train), ("held_out", self.held_out)):
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                done += len(block)
                yield side, block, Progress("tokenising", done, total)

    def facts(
        self, sides: Mapping[str, Sized], *, lengths: Sequence[int] | NDArray[np.int64]
    ) -> dict[str, Any]:
        """What an inspection says of any data set.

        Args:
            sides: What was made of each.
            lengths: Tokens of each example.
        """
        return {
            "columns": list(self.columns),
            "held_out_by": self.how,
            "num_train": len(sides["train"]),
            "num_held_out": len(sides["held_out"]),
            "tokens_mean": float(np.mean(lengths)),
            "tokens_p95": float(np.percentile(lengths, 95)),
            "tokens_max": int(np.max(lengths)),
        }


@dataclass(frozen=True)
class Located:
    """A row and the file that it is from."""

    row: Row
    file: Path


def find_files(options: DataOptions, *, roots: Roots) -> DataFiles:
    """The files that ``options`` name, fetched from the hub if need be.

    Raises:
        InvalidSpec: If something is missing or not allowed.
    """
    files = split_files(
        data_path(options.data, option="data", roots=roots), options.data_files, option="data"
    )
    if not options.test_data and not options.test_files:
        return files
    test = data_path(options.test_data or options.data, option="test_data", roots=roots)
    found = split_files(test, options.test_files, option="test_data")
    # A folder that is named as held-out data may itself be split: its held-out side is meant.
    return DataFiles(train=files.train, test=found.test or found.train)


def choose_column(given: str, known: Sequence[str], columns: Sequence[str], *, option: str) -> str:
    """The column that an option names, else the first of ``known`` that is there, else "".

    Raises:
        InvalidSpec: If the named column is not there.
    """
    if given and given not in columns:
        raise problem(option, f"there is no column {given!r}: there are {', '.join(columns)}")
    return given or next((name for name in known if name in columns), "")


def needed_column(given: str, known: Sequence[str], columns: Sequence[str], *, option: str) -> str:
    """As ``choose_column``, for a column that must be there.

    Raises:
        InvalidSpec: Also if nothing is named and nothing is recognised.
    """
    found = choose_column(given, known, columns, option=option)
    if not found:
        raise problem(option, f"name one of the columns {', '.join(columns)}: none is called {known[0]}")
    return found


def read_held_out(files: DataFiles, *, needed: Sequence[str]) -> Table | None:
    """The held-out files' rows; None without such files.

    Raises:
        InvalidSpec: If a file is wrong or lacks a column of ``needed``.
    """
    if not files.test:
        return None
    table = read_table(files.test, option="test_data")
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise problem(
            "test_data", f"{files.test[0]} has no column {missing[0]}: it has {', '.join(table.columns)}"
        )
    return table


def split_rows(options: DataOptions, files: DataFiles, *, keys: Sequence[str]) -> Split[Located]:
    """Read and split.

    Args:
        options: Held-out share and row limit.
        files: What to read.
        keys: Columns that must be there on both sides; their content decides the split.

    Raises:
        InvalidSpec: If a file is wrong, a column is missing or one side would be empty.
    """

    def content(item: Located) -> bytes:
        values = (item.row.get(key) for key in keys)
        return b"".join((v if isinstance(v, bytes) else repr(v).encode()) + b"\0" for v in values)

    table = read_table(files.train, option="data", limit=options.max_examples)
    test = read_held_out(files, needed=keys)
    return divide(
        _located(table),
        None if test is None else _located(test),
        files=files,
        columns=table.columns,
        share=options.held_out,
        content=content,
    )


def divide(
    rows: list[Item],
    test: list[Item] | None,
    *,
    files: DataFiles,
    columns: tuple[str, ...],
    share: float,
    content: Callable[[Item], bytes],
) -> Split[Item]:
    """``rows`` and ``test``; without ``test`` a share of the rows is held out by the hash of their content.

    Raises:
        InvalidSpec: If one side would be empty.
    """
    if test is None:
        held = [_fraction(content(row)) < share for row in rows]
        train = [row for row, out in zip(rows, held, strict=True) if not out]
        test = [row for row, out in zip(rows, held, strict=True) if out]
        how = f"{share:g} of the rows by the hash of their content"
    else:
        train, how = rows, ", ".join(file.name for file in files.test)
    if not train or not test:
        side = "training" if test else "held-out"
        raise problem(
            "held_out",
            f"{share:g} of {counted(len(rows), 'row', 'rows')} leaves no {side} row: change the share, add "
            "rows, or give test_data",
        )
    return Split(train, test, columns, how)


def cached_split(
    options: DataOptions,
    *,
    fields: Collection[str],
    key: Mapping[str, Any],
    make: Callable[[DataFiles], Making],
    folder: Path,
    cache_dir: Path,
    roots: Roots,
) -> Making:
    """Token sets ``train`` and ``held_out`` and facts about them, made once.

    Args:
        options: What the user chose.
        fields: Those of the options that decide the tokens, beside the files.
        key: What else decides them, and tells tasks apart.
        make: From the files that were found to the sets and facts.
        folder: Of the model, with its tokenizer.
        cache_dir: Folder of all caches.
        roots: Folders that data may come from.

    Raises:
        InvalidSpec: If data or options are wrong.
    """
    files = find_files(options, roots=roots)
    key = {
        **key,
        "train": file_digest(files.train),
        "test": file_digest(files.test) if files.test else "",
        "tokenizer": tokenizer_digest(folder),
        "options": options.model_dump(mode="json", include=set(fields)),
    }
    sets, facts = yield from cached_tokens(cache_dir, key=key, make=make(files))
    names = {"files": [str(file) for file in files.train], "test_files": [str(file) for file in files.test]}
    return sets, {**names, **facts}


def _located(table: Table) -> list[Located]:
    return [Located(*pair) for pair in zip(table.rows, table.files, strict=True)]


def _fraction(content: bytes) -> float:
    """A number in [0, 1) that depends on the content alone."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64
