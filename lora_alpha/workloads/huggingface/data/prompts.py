"""Prompts with their right final answers, for training by reward: read, split, tokenised and cached."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

from lora_alpha.catalog.huggingface import RLOptions
from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.corpus import QUOTED_CHARS, Corpus, render_rows
from lora_alpha.workloads.huggingface.data.rendering import Example
from lora_alpha.workloads.huggingface.data.rewards import Rewards, final_answer
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.split_rows import cached_split
from lora_alpha.workloads.huggingface.data.tables import DataFiles
from lora_alpha.workloads.huggingface.data.tokens import Making, TokenSet, encode
from lora_alpha.workloads.huggingface.problems import counted, problem

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
    sets, facts = yield from cached_split(
        options,
        fields=OPTION_FIELDS,
        key={"kind": "prompts"},
        make=partial(_make, options, tokenizer=tokenizer),
        folder=folder,
        cache_dir=cache_dir,
        roots=roots,
    )
    answers = facts.pop("answers")
    return Corpus(sets["train"], sets["held_out"], facts, answers=answers)


def _make(options: RLOptions, files: DataFiles, *, tokenizer: Any) -> Making:
    split, _, facts = render_rows(options, files, tokenizer=tokenizer)
    room = options.max_tokens - options.max_new_tokens
    kept: dict[str, list[tuple[list[int], int]]] = {"train": [], "held_out": []}
    answers: dict[str, list[str]] = {"train": [], "held_out": []}
    lengths: list[int] = []
    num_dropped = num_unanswered = 0
    for side, examples, progress in split.blocks():
        for example, (tokens, length) in zip(examples, encode(examples, tokenizer), strict=True):
            lengths.append(length)
            answer = _answer(options, example)
            num_unanswered += answer is None
            if 0 < length <= room and answer is not None:
                kept[side].append((tokens[:length], length))
                answers[side].append(answer)
            else:
                num_dropped += answer is not None
        yield progress
    for side, examples in (("train", split.train), ("held_out", split.held_out)):
        if not kept[side]:
            raise _nothing_to_ask(options, examples, shortest=min(lengths))
    sets = {side: TokenSet.of(found) for side, found in kept.items()}
    first = split.train[0]
    facts |= split.facts(sets, lengths=lengths) | {
        "sample": {"prompt": first.prompt[:QUOTED_CHARS], "answer": answers["train"][0]},
        "num_truncated": 0,
        "num_dropped": num_dropped,
        "num_unanswered": num_unanswered,
        "answers": answers,
    }
    return sets, facts


def _nothing_to_ask(options: RLOptions, examples: list[Example], *, shortest: int) -> InvalidSpec:
    if all(_answer(options, example) is None for example in examples):
        references = counted(len(examples), "reference", "references")
        if not options.answer_pattern:
            return problem("data", f"none of the {references} has an answer: the completions are empty")
        return problem(
            "answer_pattern",
            f"{options.answer_pattern!r} finds a final answer in none of the {references}, such as "
            f"{examples[0].completion.strip()[:80]!r}: leave it empty for the text after #### or the last "
            "number",
        )
    room = options.max_tokens - options.max_new_tokens
    return problem(
        "max_tokens",
        f"got {options.max_tokens}, of which {options.max_new_tokens} are for the completion: no prompt fits "
        f"the {room} that are left (the shortest has {shortest} tokens): raise it",
    )


def _answer(options: RLOptions, example: Example) -> str | None:
    """The right final answer of a row; where the answer is not rewarded any text will do."""
    if options.exact_weight == 0:
        return ""
    return final_answer(example.completion, options.compiled("answer_pattern"))
