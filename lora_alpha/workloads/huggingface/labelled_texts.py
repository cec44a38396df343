"""Texts or pairs of texts with labels, as tokens: what a classifier learns from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.catalog.huggingface_encoders import ClassificationOptions
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.corpus import find_files
from lora_alpha.workloads.huggingface.problems import problem
from lora_alpha.workloads.huggingface.sources import Roots
from lora_alpha.workloads.huggingface.split_rows import (
    Located,
    choose_column,
    needed_column,
    read_located,
    split_rows,
)
from lora_alpha.workloads.huggingface.tables import DataFiles, file_digest
from lora_alpha.workloads.huggingface.tokens import BLOCK, Making, TokenSet, cached_tokens, tokenizer_digest

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
    files = find_files(options, roots=roots)
    fields = {"text_column", "pair_column", "label_column", "max_tokens", "held_out", "max_examples"}
    key = {
        "task": "classification",
        "train": file_digest(files.train),
        "test": file_digest(files.test) if files.test else "",
        "tokenizer": tokenizer_digest(folder),
        "options": options.model_dump(mode="json", include=fields),
    }
    sets, facts = yield from cached_tokens(
        cache_dir, key=key, make=_make(options, files, tokenizer=tokenizer)
    )
    labels = facts.pop("label_numbers")
    return LabelledTexts(
        train=sets["train"],
        held_out=sets["held_out"],
        train_labels=np.array(labels["train"], dtype=np.int64),
        held_out_labels=np.array(labels["held_out"], dtype=np.int64),
        names=tuple(facts["labels"]),
        facts={"files": [str(file) for file in files.train], **facts},
    )


def _make(options: ClassificationOptions, files: DataFiles, *, tokenizer: Any) -> Making:
    _, columns = read_located(files.train[:1], option="data", limit=1)
    text = needed_column(options.text_column, TEXTS, columns, option="text_column")
    pair = choose_column(options.pair_column, PAIRS, columns, option="pair_column")
    label = needed_column(options.label_column, LABELS, columns, option="label_column")
    split = split_rows(options, files, keys=[name for name in (text, pair, label) if name])
    names = _label_names(split.train, label)
    sets, numbers, num_cut = {}, {}, 0
    total = len(split.train) + len(split.held_out)
    done = 0
    for side, rows in (("train", split.train), ("held_out", split.held_out)):
        numbers[side] = [_number(item, label, names) for item in rows]
        encoded = []
        for start in range(0, len(rows), BLOCK):
            yield Progress("tokenising", done + start, total)
            block = rows[start : start + BLOCK]
            found, cut = _encode(block, text, pair, tokenizer=tokenizer, max_tokens=options.max_tokens)
            encoded += found
            num_cut += cut
        done += len(rows)
        sets[side] = TokenSet.of(encoded)
    yield Progress("tokenising", total, total)
    lengths = np.concatenate([sets["train"].lengths, sets["held_out"].lengths])
    first = split.train[0].row
    facts = {
        "rows": total,
        "columns": list(split.columns),
        "rendering": f"{text} and {pair} → {label}" if pair else f"{text} → {label}",
        "sample": {"prompt": str(first[text])[:2000], "completion": str(first[label])},
        "labels": list(names),
        "label_counts": {names[n]: numbers["train"].count(n) for n in range(min(len(names), NUM_QUOTED))},
        "held_out_by": split.how,
        "num_train": len(sets["train"]),
        "num_held_out": len(sets["held_out"]),
        "tokens_mean": float(lengths.mean()),
        "tokens_p95": float(np.percentile(lengths, 95)),
        "tokens_max": int(lengths.max()),
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
        raise problem("label_column", f"column {column} has one value only ({', '.join(found)}): give two")
    if len(found) > MAX_LABELS:
        raise problem(
            "label_column",
            f"column {column} has {len(found):,} different values, at most {MAX_LABELS:,} can be learnt: "
            "is it a text, or a measured number?",
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
