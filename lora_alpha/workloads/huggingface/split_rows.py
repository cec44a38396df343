"""Rows of a table on their two sides, whatever a row means to the task.

As for language models the split depends on no seed: without a held-out file a row is held out where the hash
of what is read of it falls into the wanted share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_alpha.catalog.huggingface_options import DataOptions
from lora_alpha.workloads.huggingface.problems import problem
from lora_alpha.workloads.huggingface.tables import DataFiles, Row, read_table


@dataclass(frozen=True)
class Located:
    """A row and the file that it is from."""

    row: Row
    file: Path


@dataclass(frozen=True)
class SplitRows:
    """Both sides in the files' order, and the columns of the training files."""

    train: list[Located]
    held_out: list[Located]
    columns: tuple[str, ...]
    how: str


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


def read_located(
    files: Sequence[Path], *, option: str, limit: int = 0
) -> tuple[list[Located], tuple[str, ...]]:
    """All rows with their files, and the columns.

    Raises:
        InvalidSpec: As ``read_table``.
    """
    rows: list[Located] = []
    columns: tuple[str, ...] = ()
    for file in files:
        table = read_table([file], option=option, limit=max(0, limit - len(rows)) if limit else 0)
        if columns and set(table.columns) != set(columns):
            raise problem(
                option,
                f"{file} has the columns {', '.join(table.columns)} but {files[0].name} has "
                f"{', '.join(columns)}: choose files of one kind with {option}_files",
            )
        columns = columns or table.columns
        rows += [Located(row, file) for row in table.rows]
        if limit and len(rows) >= limit:
            break
    return rows, columns


def split_rows(options: DataOptions, files: DataFiles, *, keys: Sequence[str]) -> SplitRows:
    """Read and split.

    Args:
        options: Held-out share and row limit.
        files: What to read.
        keys: Columns that must be there on both sides; their text decides the split.

    Raises:
        InvalidSpec: If a file is wrong, a column is missing or one side would be empty.
    """
    rows, columns = read_located(files.train, option="data", limit=options.max_examples)
    if files.test:
        held_out, test_columns = read_located(files.test, option="test_data")
        missing = [name for name in keys if name not in test_columns]
        if missing:
            raise problem(
                "test_data", f"{files.test[0]} has no column {missing[0]}: it has {', '.join(test_columns)}"
            )
        train, how = rows, ", ".join(file.name for file in files.test)
    else:
        held = [_share(item.row, keys) < options.held_out for item in rows]
        train = [item for item, out in zip(rows, held, strict=True) if not out]
        held_out = [item for item, out in zip(rows, held, strict=True) if out]
        how = f"{options.held_out:g} of the rows by the hash of their content"
    if not train or not held_out:
        side = "held-out" if not held_out else "training"
        raise problem(
            "held_out",
            f"{options.held_out:g} of {len(rows)} rows leaves no {side} row: change the share, add rows, or "
            "give test_data",
        )
    return SplitRows(train, held_out, columns, how)


def _share(row: Row, keys: Sequence[str]) -> float:
    """A number in [0, 1) that depends on the content alone."""
    digest = hashlib.sha256()
    for key in keys:
        value = row.get(key)
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
        digest.update(b"\0")
    return int.from_bytes(digest.digest()[:8], "big") / 2**64
