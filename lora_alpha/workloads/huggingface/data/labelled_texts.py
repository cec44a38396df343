"""Texts or pairs of texts with labels, as tokens: what a classifier learns from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.catalog.huggingface_encoders import ClassificationOptions
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.corpus import QUOTED_CHARS
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.split_rows import (
    Located,
    cached_split,
    choose_column,
    needed_column,
    split_rows,
)
from lora_alpha.workloads.huggingface.data.tables import DataFiles, read_table
from lora_alpha.workloads.huggingface.data.tokens import Making, TokenSet
from lora_alpha.workloads.huggingface.problems import problem

TEXTS = ("text", "sentence", "sentence1", "premise", "question1", "question", "review", "content")
PAIRS = ("sentence2", "hypothesis", "question2", "text2", "text_pair")
LABELS = ("label", "labels", "class", "category", "target")
MAX_LABELS = 1000
NUM_QUOTED = 20


@dataclass(frozen=True)
class LabelledTexts:
    """Both sides of a labelled data set.

    Attributes:
        train: Tokens to train on; the prompt length of an example is its first text's, with its separator.
        held_out: Tokens to hold out.
        train_labels: (examples,).
        held_out_labels: (examples,).
        names: The labels, in the order of their numbers.
        facts: JSON-able, for an inspection.
    """

    train: TokenSet
    held_out: TokenSet
    train_labels: NDArray[np.int64]
    held_out_labels: NDArray[np.int64]
    names: tuple[str, ...]
    facts: dict[str, Any]


def prepare_labelled_texts(
    options: ClassificationOptions, *, folder: Path, tokenizer: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, LabelledTexts]:
    """Read, split and tokenise, cached.

    Raises:
        InvalidSpec: If a file, a column or a label is wrong.
    """
    sets, facts = yield from cached_split(
        options,
        fields={"text_column", "pair_column", "label_column", "max_tokens", "held_out", "max_examples"},
        key={"task": "classification"},
        make=partial(_make, options, tokenizer=tokenizer),
        folder=folder,
        cache_dir=cache_dir,
        roots=roots,
    )
    labels = facts.pop("label_numbers")
    return LabelledTexts(
        train=sets["train"],
        held_out=sets["held_out"],
        train_labels=np.array(labels["train"], dtype=np.int64),
        held_out_labels=np.array(labels["held_out"], dtype=np.int64),
        names=tuple(facts["labels"]),
        facts=facts,
    )


def _make(options: ClassificationOptions, files: DataFiles, *, tokenizer: Any) -> Making:
    columns = read_table(files.train[:1], option="data", limit=1).columns
    text = needed_column(options.text_column, TEXTS, columns, option="text_column")
    pair = choose_column(options.pair_column, PAIRS, columns, option="pair_column")
    label = needed_column(options.label_column, LABELS, columns, option="label_column")
    split = split_rows(options, files, keys=[name for name in (text, pair, label) if name])
    names = _label_names(split.train, label)
    encoded: dict[str, list[tuple[list[int], int]]] = {"train": [], "held_out": []}
    numbers: dict[str, list[int]] = {"train": [], "held_out": []}
    num_cut = 0
    for side, rows, progress in split.blocks():
        numbers[side] += [_number(item, label, names) for item in rows]
        found, cut = _encode(rows, text, pair, tokenizer=tokenizer, max_tokens=options.max_tokens)
        encoded[side] += found
        num_cut += cut
        yield progress
    sets = {side: TokenSet.of(found) for side, found in encoded.items()}
    lengths = np.concatenate([sets["train"].lengths, sets["held_out"].lengths])
    first = split.train[0].row
    facts = split.facts(sets, lengths=lengths) | {
        "rows": len(lengths),
        "rendering": f"{text} and {pair} → {label}" if pair else f"{text} → {label}",
        "sample": {"prompt": str(first[text])[:QUOTED_CHARS], "completion": str(first[label])},
        "labels": list(names),
        "label_counts": {names[n]: numbers["train"].count(n) for n in range(min(len(names), NUM_QUOTED))},
        "num_truncated": num_cut,
        "label_numbers": numbers,
    }
    return sets, facts


def _encode(
    rows: Sequence[Located], text: str, pair: str, *, tokenizer: Any, max_tokens: int
) -> tuple[list[tuple[list[int], int]], int]:
    """(tokens, tokens of the first segment) of each row, and how many were cut."""
    columns = [[_text(item, name) for item in rows] for name in (text, pair) if name]
    whole = tokenizer(*columns, add_special_tokens=True, verbose=False)
    cut = sum(len(ids) > max_tokens for ids in whole["input_ids"])
    if cut:
        # Cut by the tokenizer, which keeps its last special token and cuts the longer text of a pair.
        whole = tokenizer(*columns, truncation=True, max_length=max_tokens)
    types = whole.get("token_type_ids") or [[0] * len(ids) for ids in whole["input_ids"]]
    return [
        (list(ids), len(ids) - sum(kinds)) for ids, kinds in zip(whole["input_ids"], types, strict=True)
    ], cut


def _text(item: Located, column: str) -> str:
    value = item.row.get(column)
    if not isinstance(value, str):
        raise problem("data", f"{item.file}: a row has {value!r} in column {column} instead of a text")
    return value


def _label_names(rows: Sequence[Located], column: str) -> tuple[str, ...]:
    """The labels that occur, numbers in their own order, names in the alphabet's."""
    found = {_label(item, column) for item in rows}
    if len(found) < 2:
        raise problem(
            "label_column",
            f"column {column} has one value only ({', '.join(found)}): a classifier needs two or more labels",
        )
    if len(found) > MAX_LABELS:
        raise problem(
            "label_column",
            f"column {column} has {len(found):,} different values, at most {MAX_LABELS:,} can be learnt: "
            "name a column of labels, not of texts or measured numbers",
        )
    try:
        return tuple(sorted(found, key=int))
    except ValueError:
        return tuple(sorted(found))


def _label(item: Located, column: str) -> str:
    value = item.row.get(column)
    if value is None or value == "" or isinstance(value, list | dict | bytes):
        raise problem(
            "label_column", f"{item.file}: a row has {value!r} in column {column} instead of a label"
        )
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return str(value)


def _number(item: Located, column: str, names: tuple[str, ...]) -> int:
    label = _label(item, column)
    if label not in names:
        known = ", ".join(names[:NUM_QUOTED])
        raise problem("test_data", f"{item.file}: the label {label!r} does not occur in training ({known})")
    return names.index(label)
