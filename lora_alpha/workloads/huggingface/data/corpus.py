"""What a language model learns from: rows read, rendered, split, tokenised and cached."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.catalog.huggingface_options import CausalLMOptions, ColumnOptions
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.rendering import Example, Rendering, choose_rendering
from lora_alpha.workloads.huggingface.data.sources import Roots, data_path, local_path
from lora_alpha.workloads.huggingface.data.split_rows import Split, cached_split, divide, read_held_out
from lora_alpha.workloads.huggingface.data.tables import (
    DataFiles,
    Table,
    file_digest,
    read_table,
    split_files,
)
from lora_alpha.workloads.huggingface.data.tokens import (
    Making,
    TokenSet,
    cached_tokens,
    cut_examples,
    cut_windows,
    encode,
    tokenizer_digest,
)
from lora_alpha.workloads.huggingface.problems import problem

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


def render_rows(
    options: Any, files: DataFiles, *, tokenizer: Any
) -> tuple[Split[Example], Rendering, dict[str, Any]]:
    """Read, render and split every row.

    Args:
        options: ``DataOptions`` with ``ColumnOptions``.
        files: What was found.
        tokenizer: For conversations.

    Returns:
        The split, how rows were rendered, and facts about both.

    Raises:
        InvalidSpec: If a file, column or template is wrong, or one side would be empty.
    """
    table = read_table(files.train, option="data", limit=options.max_examples)
    rendering = choose_rendering(options, table.columns, tokenizer=tokenizer)
    rows = _rendered(table, rendering)
    test = read_held_out(files, needed=rendering.columns)
    split = divide(
        rows,
        None if test is None else _rendered(test, rendering),
        files=files,
        columns=table.columns,
        share=options.held_out,
        content=lambda example: f"{example.prompt}\0{example.completion}".encode(),
    )
    trained = set(split.train)
    facts = {
        "rows": len(rows),
        "rendering": rendering.describe,
        "num_shared": sum(example in trained for example in split.held_out),
    }
    return split, rendering, facts


def prepare_corpus(
    options: Any, *, folder: Path, tokenizer: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, Corpus]:
    """The corpus of ``options`` (``CausalLMOptions`` with ``ColumnOptions``), cached.

    Raises:
        InvalidSpec: If data or options are wrong.
    """
    sets, facts = yield from cached_split(
        options,
        fields={*ColumnOptions.model_fields, "text_column", "messages_column", "held_out", "max_examples"},
        key={"max_tokens": options.max_tokens},
        make=partial(_make, options, tokenizer=tokenizer),
        folder=folder,
        cache_dir=cache_dir,
        roots=roots,
    )
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
    split, rendering, facts = render_rows(options, files, tokenizer=tokenizer)
    kept: dict[str, list[tuple[NDArray[np.int32], int]]] = {"train": [], "held_out": []}
    prompts: dict[str, list[int]] = {"train": [], "held_out": []}
    lengths: list[int] = []
    num_cut = num_dropped = 0
    for side, examples, progress in split.blocks():
        encoded = encode(examples, tokenizer)
        lengths += [len(tokens) for tokens, _ in encoded]
        prompts[side] += [length for _, length in encoded]
        if rendering.is_text:
            pieces = cut_windows(encoded, max_tokens=options.max_tokens)
        else:
            pieces, cut = cut_examples(encoded, max_tokens=options.max_tokens)
            num_cut += cut.num_cut
            num_dropped += cut.num_dropped
        # A list of numbers takes nine times the memory.
        kept[side] += [(np.array(tokens, dtype=np.int32), length) for tokens, length in pieces]
        yield progress
    for side, found in kept.items():
        if not found:
            raise _nothing_to_learn(side, prompts[side], max_tokens=options.max_tokens)
    sets = {side: TokenSet.of(found) for side, found in kept.items()}
    shown = split.train[0]
    facts |= split.facts(sets, lengths=lengths) | {
        "sample": {"prompt": shown.prompt[:QUOTED_CHARS], "completion": shown.completion[:QUOTED_CHARS]},
        "prompt_tokens_mean": float(np.mean([*prompts["train"], *prompts["held_out"]])),
        "num_truncated": num_cut,
        "num_dropped": num_dropped,
        "is_text": rendering.is_text,
    }
    return sets, facts


def _nothing_to_learn(side: str, prompts: list[int], *, max_tokens: int) -> InvalidSpec:
    where = "held-out" if side == "held_out" else "training"
    shortest = min(prompts)
    if shortest < max_tokens:
        return problem(
            "data",
            f"no {where} example has a token to learn within max_tokens = {max_tokens}: give longer texts or "
            "completions",
        )
    return problem(
        "max_tokens",
        f"got {max_tokens}: every {where} prompt fills it and leaves nothing to learn: raise it (the "
        f"shortest has {shortest} tokens)",
    )


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
        raise problem("source_data", f"{files[0]} has no text of two tokens or more: give another file")
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
