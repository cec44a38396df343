"""A data set made ready: rows read, rendered, tokenised, and split into training and held-out examples.

The split does not depend on any seed: without a test file a row is held out where the hash of its rendered
text falls into the wanted share, so equal rows never stand on both sides and a longer file keeps its split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.catalog.huggingface_options import CausalLMOptions, ColumnOptions, DataOptions
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.problems import problem
from lora_alpha.workloads.huggingface.rendering import Example, Rendering, choose_rendering
from lora_alpha.workloads.huggingface.sources import Roots, data_path, local_path
from lora_alpha.workloads.huggingface.tables import DataFiles, Table, file_digest, read_table, split_files
from lora_alpha.workloads.huggingface.tokens import (
    BLOCK,
    Making,
    TokenSet,
    cached_tokens,
    cut_examples,
    cut_windows,
    encode,
    tokenizer_digest,
)

QUOTED_CHARS = 2000


@dataclass(frozen=True)
class Corpus:
    """Tokens to train on and to hold out, and what an inspection says about them.

    Attributes:
        train: To train on.
        held_out: To hold out.
        facts: JSON-able.
        answers: Right final answers of both sides, where a reward needs them.
    """

    train: TokenSet
    held_out: TokenSet
    facts: dict[str, Any]
    answers: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Rendered rows on their two sides, in the files' order."""

    train: list[Example]
    held_out: list[Example]
    rendering: Rendering
    num_rows: int
    columns: tuple[str, ...]
    how: str

    @property
    def num_shared(self) -> int:
        """Held-out rows whose text is trained on as well."""
        trained = set(self.train)
        return sum(example in trained for example in self.held_out)


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
    found = split_files(test, options.test_files, option="test")
    # A folder that is named as held-out data may itself be split: its held-out side is meant.
    return DataFiles(train=files.train, test=found.test or found.train)


def split_rows(options: Any, files: DataFiles, *, tokenizer: Any) -> Split:
    """Read, render and split every row.

    Args:
        options: ``DataOptions`` with ``ColumnOptions``.
        files: What :func:`find_files` found.
        tokenizer: For conversations.

    Raises:
        InvalidSpec: If a file, column or template is wrong, or one side would be empty.
    """
    table = read_table(files.train, option="data", limit=options.max_examples)
    rendering = choose_rendering(options, table.columns, tokenizer=tokenizer)
    rendered = _rendered(table, rendering)
    if files.test:
        test = read_table(files.test, option="test")
        missing = [column for column in rendering.columns if column not in test.columns]
        if missing:
            raise problem(
                "test_data", f"{files.test[0]} has no column {missing[0]}: it has {', '.join(test.columns)}"
            )
        train, held_out, how = rendered, _rendered(test, rendering), ", ".join(f.name for f in files.test)
    else:
        held = [_share(example) < options.held_out for example in rendered]
        train = [example for example, out in zip(rendered, held, strict=True) if not out]
        held_out = [example for example, out in zip(rendered, held, strict=True) if out]
        how = f"{options.held_out:g} of the rows by the hash of their text"
    if not held_out or not train:
        side = "held-out" if not held_out else "training"
        raise problem(
            "held_out",
            f"{options.held_out:g} of {len(rendered)} rows leaves no {side} row: change the share, add rows, "
            "or give test_data",
        )
    return Split(train, held_out, rendering, len(rendered), table.columns, how)


def prepare_corpus(
    options: Any, *, folder: Path, tokenizer: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, Corpus]:
    """The corpus of ``options`` (``CausalLMOptions`` with ``ColumnOptions``), cached.

    Raises:
        InvalidSpec: If data or options are wrong.
    """
    files = find_files(options, roots=roots)
    fields = {*ColumnOptions.model_fields, "text_column", "messages_column", "held_out", "max_examples"}
    key = {
        "train": file_digest(files.train),
        "test": file_digest(files.test) if files.test else "",
        "tokenizer": tokenizer_digest(folder),
        "max_tokens": options.max_tokens,
        "options": options.model_dump(mode="json", include=fields),
    }
    sets, facts = yield from cached_tokens(
        cache_dir, key=key, make=_make(options, files, tokenizer=tokenizer)
    )
    facts = {
        "files": [str(file) for file in files.train],
        "test_files": [str(f) for f in files.test],
        **facts,
    }
    return Corpus(sets["train"], sets["held_out"], facts)


def prepare_source(
    options: CausalLMOptions, *, folder: Path, tokenizer: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, TokenSet | None]:
    """Windows of the text that measures forgetting, at most ``num_eval``, evenly spread; None without one.

    Raises:
        InvalidSpec: If the file or its column is missing.
    """
    if not options.source_data:
        return None
    path = _source_path(options.source_data, roots)
    files = (path,) if path.is_file() else split_files(path, "", option="source_data").train
    key = {
        "source": file_digest(files),
        "column": options.source_column,
        "tokenizer": tokenizer_digest(folder),
        "max_tokens": options.max_tokens,
        "num_eval": options.num_eval,
    }
    sets, _ = yield from cached_tokens(
        cache_dir, key=key, make=_make_source(options, files, tokenizer=tokenizer)
    )
    return sets["source"]


def _source_path(name: str, roots: Roots) -> Path:
    path = local_path(name, option="source_data", roots=roots)
    return data_path(name, option="source_data", roots=roots) if path is None else path


def _make(options: Any, files: DataFiles, *, tokenizer: Any) -> Making:
    split = split_rows(options, files, tokenizer=tokenizer)
    sets: dict[str, TokenSet] = {}
    lengths: list[int] = []
    prompts: list[int] = []
    num_cut = num_dropped = 0
    total = len(split.train) + len(split.held_out)
    done = 0
    for name, examples in (("train", split.train), ("held_out", split.held_out)):
        kept: list[tuple[NDArray[np.int32], int]] = []
        first = len(prompts)
        for start in range(0, len(examples), BLOCK):
            yield Progress("tokenising", done + start, total)
            encoded = encode(examples[start : start + BLOCK], tokenizer)
            lengths += [len(tokens) for tokens, _ in encoded]
            prompts += [length for _, length in encoded]
            if split.rendering.is_text:
                pieces = cut_windows(encoded, max_tokens=options.max_tokens)
            else:
                pieces, cut = cut_examples(encoded, max_tokens=options.max_tokens)
                num_cut += cut.num_cut
                num_dropped += cut.num_dropped
            # A list of numbers takes nine times the memory.
            kept += [(np.array(tokens, dtype=np.int32), length) for tokens, length in pieces]
        done += len(examples)
        if not kept:
            side = "held-out" if name == "held_out" else "training"
            raise problem(
                "max_tokens",
                f"got {options.max_tokens}: each of the {len(examples)} {side} prompts fills it, nothing is "
                f"left to learn: raise it (the shortest has {min(prompts[first:])} tokens)",
            )
        sets[name] = TokenSet.of(kept)
    yield Progress("tokenising", total, total)
    shown = split.train[0]
    facts = {
        "rows": split.num_rows,
        "columns": list(split.columns),
        "rendering": split.rendering.describe,
        "sample": {"prompt": shown.prompt[:QUOTED_CHARS], "completion": shown.completion[:QUOTED_CHARS]},
        "held_out_by": split.how,
        "num_train": len(sets["train"]),
        "num_held_out": len(sets["held_out"]),
        "tokens_mean": float(np.mean(lengths)),
        "tokens_p95": float(np.percentile(lengths, 95)),
        "tokens_max": int(np.max(lengths)),
        "prompt_tokens_mean": float(np.mean(prompts)),
        "num_shared": split.num_shared,
        "num_truncated": num_cut,
        "num_dropped": num_dropped,
        "is_text": split.rendering.is_text,
    }
    return sets, facts


def _make_source(options: CausalLMOptions, files: tuple[Path, ...], *, tokenizer: Any) -> Making:
    yield Progress("tokenising the source text", 0, 1)
    if files[0].suffix.lower() == ".txt":
        texts = [files[0].read_text(encoding="utf-8", errors="replace")]
    else:
        table = read_table(files, option="source_data")
        if options.source_column not in table.columns:
            raise problem(
                "source_column",
                f"there is no column {options.source_column!r}: there are {', '.join(table.columns)}",
            )
        texts = [str(row.get(options.source_column) or "") for row in table.rows]
    encoded = encode([Example(prompt="", completion=text) for text in texts if text], tokenizer)
    windows = cut_windows(encoded, max_tokens=options.max_tokens)
    if not windows:
        raise problem("source_data", f"{files[0]} has no text of at least two tokens: give another file")
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(options.num_eval, len(windows))).astype(int))
    yield Progress("tokenising the source text", 1, 1)
    return {"source": TokenSet.of([windows[index] for index in chosen])}, {}


def _rendered(table: Table, rendering: Rendering) -> list[Example]:
    examples = []
    for number, row in enumerate(table.rows, start=1):
        try:
            examples.append(rendering.render(row))
        except InvalidSpec as error:
            raise InvalidSpec(
                [FieldProblem(item.field, f"row {number}: {item.message}") for item in error.problems]
            ) from None
    return examples


def _share(example: Example) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(f"{example.prompt}\0{example.completion}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
