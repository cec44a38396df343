from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_alpha.workloads.huggingface.data.rendering import Example
from lora_alpha.workloads.huggingface.data.tokens import TokenSet, cut_examples, cut_windows, encode
from lora_alpha.workloads.registry import load_workload
from tests.lora_alpha.workloads.huggingface.conftest import sums
from tests.tiny_folders import byte_tokenizer, write_jsonl

END, BEGIN = 1, 0


@pytest.mark.parametrize("bos", [False, True])
def test_the_prompts_tokens_are_those_of_the_prompt_alone(bos: bool) -> None:
    tokenizer = byte_tokenizer(bos=bos)
    ((tokens, length),) = encode([Example("Q: é?", " yes")], tokenizer)

    assert tokens[:length] == tokenizer("Q: é?")["input_ids"]
    assert tokenizer.decode(tokens[length:]) == " yes</s>"
    assert tokens[-1] == END
    assert (tokens[0] == BEGIN) == bos


def test_conversations_get_no_special_tokens_of_the_tokenizers() -> None:
    ((tokens, length),) = encode(
        [Example("<user>a<assistant>", "b", special=False)], byte_tokenizer(bos=True)
    )
    assert BEGIN not in tokens
    assert END not in tokens
    assert len(tokens) - length == 1


class Merging:
    """A tokenizer that joins a prompt's last letter and a completion's first into one token."""

    eos_token_id = END

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(c) for c in text.replace("ab", "\u00ff")] for text in texts]}


def test_a_token_across_the_boundary_is_split_there() -> None:
    ((tokens, length),) = encode([Example("xa", "by")], Merging())
    assert tokens == [ord("x"), ord("a"), ord("b"), ord("y"), END]
    assert length == 2


def test_cutting_keeps_prompts_and_counts_what_it_loses() -> None:
    encoded = [(list(range(10)), 3), (list(range(5)), 4), (list(range(9)), 8), ([7], 0)]
    kept, cut = cut_examples(encoded, max_tokens=6)
    assert kept == [(list(range(6)), 3), (list(range(5)), 4)]
    assert (cut.num_cut, cut.num_dropped) == (1, 2)


def test_texts_are_cut_into_windows_that_lose_nothing() -> None:
    windows = cut_windows([(list(range(7)), 0), ([1, 2], 0)], max_tokens=3)
    assert windows == [([0, 1, 2], 0), ([3, 4, 5], 0), ([1, 2], 0)]


def test_tokens_are_made_once_for_equal_content(
    models: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(data: Path, **options: Any) -> tuple[list[str], Any]:
        workload = load_workload(
            "hf-sft", {"model": str(models()), "data": str(data), "max_tokens": 64, **options}
        )
        labels = [progress.label for progress in workload.prepare(tmp_path / "cache")]
        return labels, workload.data

    first = write_jsonl(tmp_path / "first.jsonl", sums())
    labels, made = prepare(first)
    assert "tokenising" in labels
    again, read = prepare(write_jsonl(tmp_path / "copy.jsonl", sums()))
    assert "tokenising" not in again
    assert all(
        np.array_equal(getattr(made.train, part), getattr(read.train, part))
        for part in ("tokens", "offsets", "prompt_lengths")
    )
    assert made.facts["rows"] == read.facts["rows"]
    for change in (
        {"max_tokens": 60},
        {"held_out": 0.3},
        {"prompt_template": "{question}", "completion_column": "answer"},
    ):
        assert "tokenising" in prepare(first, **change)[0]
    assert not list((tmp_path / "cache" / "tokens").glob("*.tmp"))
    for file in (tmp_path / "cache" / "tokens").iterdir():
        file.write_bytes(b"damaged")
    assert "tokenising" in prepare(first)[0]


def test_the_split_knows_no_order_and_keeps_equal_rows_together(
    models: Callable[..., Path], tmp_path: Path
) -> None:
    def held_out(rows: list[dict[str, str]]) -> set[bytes]:
        data = write_jsonl(tmp_path / "data.jsonl", rows)
        workload = load_workload(
            "hf-sft", {"model": str(models()), "data": str(data), "max_tokens": 64, "held_out": 0.25}
        )
        for _ in workload.prepare(tmp_path / "cache"):
            pass
        corpus = workload.data
        sides = [
            {part.example(i).tobytes() for i in range(len(part))} for part in (corpus.train, corpus.held_out)
        ]
        assert not sides[0] & sides[1]
        return sides[1]

    rows = sums(60)
    some = held_out(rows)
    assert 5 <= len(some) <= 25
    assert held_out(rows[::-1] + rows[:20]) == some
    assert held_out(rows[:30]) <= some


def test_an_empty_set_has_no_examples() -> None:
    assert len(TokenSet.of([])) == 0
