"""Reading JSONL, CSV, TSV and Parquet into rows, with the line named where one is wrong.

A row is a mapping from column to value. A folder is read as a data set: its files named ``train…`` are
trained on and those named ``test…``, ``valid…``, ``eval…`` or ``dev…`` are held out, whichever subfolder they
are in; without such names every table in it is trained on.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.huggingface.data.sources import DATA_SUFFIXES
from lora_alpha.workloads.huggingface.problems import problem

Row = dict[str, Any]
HELD_OUT_NAMES = ("test", "valid", "eval", "dev")
# The option that chooses among the files of a folder, by the option that names the folder.
CHOSEN_BY = {"data": "data_files", "test_data": "test_files"}
MAX_FIELD_CHARS = 2**31 - 1  # the csv module's own limit of 131,072 is shorter than some documents


@dataclass(frozen=True)
class DataFiles:
    """Which files are trained on and which are held out (none: a share of the rows is)."""

    train: tuple[Path, ...]
    test: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of files that have the same columns, and the file of each."""

    rows: tuple[Row, ...]
    files: tuple[Path, ...]
    columns: tuple[str, ...]


def split_files(path: Path, pattern: str, *, option: str) -> DataFiles:
    """The files at ``path``: itself, or those below it that match ``pattern`` (such as ``main/train*``).

    Raises:
        InvalidSpec: If there are none, or one has another ending than those that can be read.
    """
    if path.is_file():
        _check_suffix(path, option=option)
        return DataFiles(train=(path,))
    if pattern:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise problem(CHOSEN_BY[option], f"got {pattern!r}: write it relative to {path}, without ..")
        found = _tables_below(path, pattern)
        if not found:
            raise problem(CHOSEN_BY[option], f"no table below {path} matches {pattern!r}")
        return DataFiles(train=found)
    found = _tables_below(path, "**/*")
    if not found:
        endings = ", ".join(DATA_SUFFIXES)
        raise problem(option, f"{path} holds no table: put files there that end in {endings}")
    train = tuple(file for file in found if file.name.lower().startswith("train"))
    test = tuple(file for file in found if file.name.lower().startswith(HELD_OUT_NAMES))
    rest = tuple(file for file in found if file not in train and file not in test)
    return DataFiles(train=train or rest or test, test=test if train or rest else ())


def read_table(files: Sequence[Path], *, option: str, limit: int = 0) -> Table:
    """All rows of ``files`` in order, at most ``limit`` of them (0: all).

    Raises:
        InvalidSpec: If a file is empty, damaged (with its line) or has other columns than the first.
    """
    rows: list[Row] = []
    sources: list[Path] = []
    columns: tuple[str, ...] = ()
    for file in files:
        _check_suffix(file, option=option)
        wanted = limit - len(rows) if limit else None
        read = list(itertools.islice(_READERS[file.suffix.lower()](file, option), wanted))
        if not read:
            raise problem(option, f"{file} is empty: it needs at least one row")
        names = tuple(dict.fromkeys(itertools.chain.from_iterable(read)))
        if columns and set(names) != set(columns):
            how = f" with {CHOSEN_BY[option]}" if option in CHOSEN_BY else ""
            raise problem(
                option,
                f"{file} has the columns {', '.join(names)} but {files[0].name} has {', '.join(columns)}: "
                f"choose files of one kind{how}",
            )
        columns = columns or names
        rows += read
        sources += [file] * len(read)
        if limit and len(rows) >= limit:
            break
    return Table(tuple(rows), tuple(sources), columns)


def file_digest(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of ``files`` in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _tables_below(folder: Path, pattern: str) -> tuple[Path, ...]:
    root = folder.resolve()
    found = sorted(folder.glob(pattern))
    return tuple(
        file
        for file in found
        if file.is_file() and file.suffix.lower() in DATA_SUFFIXES and _inside(file, root)
    )


def _inside(file: Path, root: Path) -> bool:
    """Whether a link leads out of the folder; the hub's own snapshots link to its ``blobs`` next door."""
    resolved = file.resolve()
    hub = root.parent.parent if root.parent.name == "snapshots" else root
    return resolved.is_relative_to(root) or resolved.is_relative_to(hub)


def _check_suffix(file: Path, *, option: str) -> None:
    if file.suffix.lower() not in _READERS:
        raise problem(
            option, f"{file} ends in {file.suffix!r}: what can be read are {', '.join(DATA_SUFFIXES)}"
        )


def _read_jsonl(file: Path, option: str) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(_decoded(stream, file, option), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise problem(option, f"{file}, line {number}: no valid JSON ({error.msg})") from None
            if not isinstance(row, dict):
                raise problem(
                    option, f"{file}, line {number}: {type(row).__name__} instead of an object with columns"
                )
            yield row


def _read_separated(delimiter: str) -> Callable[[Path, str], Iterator[Row]]:
    def read(file: Path, option: str) -> Iterator[Row]:
        csv.field_size_limit(MAX_FIELD_CHARS)
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(_decoded(stream, file, option), delimiter=delimiter)
            for row in reader:
                if None in row or None in row.values():
                    raise problem(
                        option,
                        f"{file}, line {reader.line_num}: another number of fields than the "
                        f"{len(reader.fieldnames or [])} of the header",
                    )
                yield dict(row)

    return read


def _read_parquet(file: Path, option: str) -> Iterator[Row]:
    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise problem(option, f"{file} cannot be read as Parquet: {str(error)[:200]}") from error


def _decoded(stream: Iterator[str], file: Path, option: str) -> Iterator[str]:
    try:
        yield from stream
    except UnicodeDecodeError as error:
        raise _not_utf8(file, option) from error


def _not_utf8(file: Path, option: str) -> InvalidSpec:
    return problem(option, f"{file} is not UTF-8 text: save it as UTF-8")


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_separated(","),
    ".tsv": _read_separated("\t"),
    ".parquet": _read_parquet,
}
