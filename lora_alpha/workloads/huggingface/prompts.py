"""Prompts with their right final answers, for training by reward: read, split, tokenised and cached."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from lora_alpha.catalog.huggingface import RLOptions
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.corpus import QUOTED_CHARS, Corpus, find_files, split_rows
from lora_alpha.workloads.huggingface.problems import problem
from lora_alpha.workloads.huggingface.rendering import Example
from lora_alpha.workloads.huggingface.rewards import Rewards, final_answer
from lora_alpha.workloads.huggingface.sources import Roots
from lora_alpha.workloads.huggingface.tables import DataFiles, file_digest
from lora_alpha.workloads.huggingface.tokens import (
    BLOCK,
    Making,
    TokenSet,
    cached_tokens,
    encode,
    tokenizer_digest,
)

OPTION_FIELDS = {
    "prompt_column",
    "completion_column",
    "prompt_template",
    "completion_template",
    "held_out",
    "max_examples",
    "max_tokens",
    "max_new_tokens",
    "answer_pattern",
    "exact_weight",
}


def rewards_of(options: RLOptions) -> Rewards:
    """The judge that ``options`` describe."""
    return Rewards(
        exact=options.exact_weight,
        answer_pattern=options.compiled("answer_pattern"),
        pattern=options.pattern_weight,
        pattern_of=options.compiled("reward_pattern"),
        form=options.form_weight,
        form_of=options.compiled("form_pattern"),
    )


def prepare_prompts(
    options: RLOptions, *, folder: Path, tokenizer: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, Corpus]:
    """Prompts as token sets (all of each is given, nothing is learnt) with their ``answers``, cached.

    Raises:
        InvalidSpec: If data or options are wrong, or no reference has a final answer that can be rewarded.
    """
    files = find_files(options, roots=roots)
    key = {
        "kind": "prompts",
        "train": file_digest(files.train),
        "test": file_digest(files.test) if files.test else "",
        "tokenizer": tokenizer_digest(folder),
        "options": options.model_dump(mode="json", include=OPTION_FIELDS),
    }
    sets, facts = yield from cached_tokens(
        cache_dir, key=key, make=_make(options, files, tokenizer=tokenizer)
    )
    answers = facts.pop("answers")
    facts = {
        "files": [str(file) for file in files.train],
        "test_files": [str(f) for f in files.test],
        **facts,
    }
    return Corpus(sets["train"], sets["held_out"], facts, answers=answers)


def _make(options: RLOptions, files: DataFiles, *, tokenizer: Any) -> Making:
    split = split_rows(options, files, tokenizer=tokenizer)
    room = options.max_tokens - options.max_new_tokens
    sets: dict[str, TokenSet] = {}
    answers: dict[str, list[str]] = {}
    lengths: list[int] = []
    num_dropped = num_unanswered = 0
    total = len(split.train) + len(split.held_out)
    done = 0
    for name, examples in (("train", split.train), ("held_out", split.held_out)):
        kept: list[tuple[list[int], int]] = []
        answers[name] = []
        for start in range(0, len(examples), BLOCK):
            yield Progress("tokenising", done + start, total)
            block = examples[start : start + BLOCK]
            for example, (tokens, length) in zip(block, encode(block, tokenizer), strict=True):
                lengths.append(length)
                answer = _answer(options, example)
                num_unanswered += answer is None
                if 0 < length <= room and answer is not None:
                    kept.append((tokens[:length], length))
                    answers[name].append(answer)
                else:
                    num_dropped += answer is not None
        done += len(examples)
        if not kept and num_unanswered:
            raise problem(
                "answer_pattern",
                f"{options.answer_pattern!r} finds a final answer in none of the {len(examples)} references, "
                f"such as {examples[0].completion.strip()[:80]!r}: leave it empty for the text after #### or "
                "the last number",
            )
        if not kept:
            raise problem(
                "max_tokens",
                f"got {options.max_tokens}, of which {options.max_new_tokens} are for the completion: no "
                f"prompt fits the {room} that are left (the shortest has {min(lengths)} tokens): raise it",
            )
        sets[name] = TokenSet.of(kept)
    yield Progress("tokenising", total, total)
    first = split.train[0]
    facts = {
        "rows": split.num_rows,
        "columns": list(split.columns),
        "rendering": split.rendering.describe,
        "sample": {"prompt": first.prompt[:QUOTED_CHARS], "answer": answers["train"][0]},
        "held_out_by": split.how,
        "num_train": len(sets["train"]),
        "num_held_out": len(sets["held_out"]),
        "tokens_mean": float(np.mean(lengths)),
        "tokens_p95": float(np.percentile(lengths, 95)),
        "tokens_max": int(np.max(lengths)),
        "num_shared": split.num_shared,
        "num_truncated": 0,
        "num_dropped": num_dropped,
        "num_unanswered": num_unanswered,
        "answers": answers,
    }
    return sets, facts


def _answer(options: RLOptions, example: Example) -> str | None:
    """The right final answer of a row; where the answer is not rewarded any text will do."""
    if options.exact_weight == 0:
        return ""
    return final_answer(example.completion, options.compiled("answer_pattern"))
