"""Rendered rows as tokens, made once and cached by the content of everything that decides them.

An example is a run of tokens of which the first ``prompt_length`` are given and the rest is learnt. Prompt
and completion are tokenised together where the prompt's own tokens are then a prefix, else one after the
other, so that a model that is asked the prompt alone sees just these tokens. Completions end with the
tokenizer's end-of-text token; conversations end as their template has it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.rendering import Example

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
VERSION = 2  # raised whenever the same inputs would give other tokens
BLOCK = 256  # rows between two reports, tokenised at once


@dataclass(frozen=True)
class TokenSet:
    """Examples one after the other.

    Attributes:
        tokens: All tokens, int32.
        offsets: Example i is ``tokens[offsets[i] : offsets[i + 1]]``, int64.
        prompt_lengths: Given tokens of each example, int32.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    prompt_lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        return np.diff(self.offsets)

    def example(self, index: int) -> NDArray[np.int32]:
        """The tokens of one example."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def of(cls, examples: Iterable[tuple[Sequence[int] | NDArray[np.int32], int]]) -> TokenSet:
        """From (tokens, prompt length) of each example."""
        pairs = [(np.asarray(tokens, dtype=np.int32), length) for tokens, length in examples]
        lengths = [len(tokens) for tokens, _ in pairs]
        return cls(
            tokens=np.concatenate([tokens for tokens, _ in pairs] or [np.zeros(0, dtype=np.int32)]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            prompt_lengths=np.array([length for _, length in pairs], dtype=np.int32),
        )


Making = Generator[Progress, None, tuple[dict[str, TokenSet], dict[str, Any]]]


@dataclass(frozen=True)
class Cut:
    """What ``max_tokens`` did: examples that lost their end, and those with nothing left to learn."""

    num_cut: int = 0
    num_dropped: int = 0


def encode(examples: Sequence[Example], tokenizer: Any) -> list[tuple[list[int], int]]:
    """(tokens, prompt length) of each example, whatever its length."""
    with_special = [example.special for example in examples]
    end = tokenizer.eos_token_id
    encoded = []
    prompts = _ids(tokenizer, [e.prompt for e in examples], with_special, end)
    wholes = _ids(tokenizer, [e.prompt + e.completion for e in examples], with_special, end)
    for example, prompt, whole in zip(examples, prompts, wholes, strict=True):
        if whole[: len(prompt)] == prompt:
            tokens = whole
        else:
            tokens = prompt + _ids(tokenizer, [example.completion], [False], None)[0]
        if example.special and end is not None:
            tokens = [*tokens, end]
        encoded.append((tokens, len(prompt)))
    return encoded


def cut_examples(
    encoded: Sequence[tuple[list[int], int]], *, max_tokens: int
) -> tuple[list[tuple[list[int], int]], Cut]:
    """Examples of at most ``max_tokens`` tokens that have something to learn."""
    kept = [
        (tokens[:max_tokens], length)
        for tokens, length in encoded
        if max(1, length) < min(len(tokens), max_tokens)
    ]
    return kept, Cut(
        num_cut=sum(len(tokens) > max_tokens for tokens, length in encoded if max(1, length) < max_tokens),
        num_dropped=len(encoded) - len(kept),
    )


def cut_windows(encoded: Sequence[tuple[list[int], int]], *, max_tokens: int) -> list[tuple[list[int], int]]:
    """Texts as consecutive windows of at most ``max_tokens`` tokens; a single left-over token is left out."""
    windows = [
        tokens[start : start + max_tokens]
        for tokens, _ in encoded
        for start in range(0, len(tokens), max_tokens)
    ]
    return [(window, 0) for window in windows if len(window) > 1]


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of the files that make the tokenizer in ``folder``."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = folder / name
        if path.is_file():
            digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def cached_tokens(
    cache_dir: Path,
    *,
    key: Mapping[str, Any],
    make: Making,
) -> Making:
    """Token sets by name and facts about them: read from the cache, or made, stored and returned.

    The file ``tokens/<hash>.safetensors`` appears by rename; a damaged one is made anew.

    Args:
        cache_dir: Folder of all caches.
        key: JSON-able description of everything that decides the tokens.
        make: Generator that yields progress and returns the sets and the facts (JSON-able).
    """
    text = json.dumps({**key, "version": VERSION}, sort_keys=True)
    path = cache_dir / "tokens" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"
    if path.exists():
        try:
            return _read(path)
        except (SafetensorError, OSError, KeyError, ValueError):
            path.unlink(missing_ok=True)
    sets, facts = yield from make
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    arrays = {
        f"{name}/{part}": np.ascontiguousarray(getattr(tokens, part))
        for name, tokens in sets.items()
        for part in ("tokens", "offsets", "prompt_lengths")
    }
    save_file(arrays, temporary, metadata={"facts": json.dumps(facts), "key": text})
    temporary.replace(path)
    return sets, facts


def _read(path: Path) -> tuple[dict[str, TokenSet], dict[str, Any]]:
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        names = dict.fromkeys(key.rpartition("/")[0] for key in file.keys())  # noqa: SIM118
        sets = {
            name: TokenSet(
                tokens=file.get_tensor(f"{name}/tokens"),
                offsets=file.get_tensor(f"{name}/offsets"),
                prompt_lengths=file.get_tensor(f"{name}/prompt_lengths"),
            )
            for name in names
        }
    return sets, facts


def _ids(tokenizer: Any, texts: Sequence[str], special: Sequence[bool], end: int | None) -> list[list[int]]:
    """Tokens of each text; an end-of-text that the tokenizer itself appends is taken off again."""
    results: list[list[int]] = [[] for _ in texts]
    for wanted in (True, False):
        places = [place for place, value in enumerate(special) if value == wanted]
        if not places:
            continue
        batch = [texts[place] for place in places]
        # A text without characters has no tokens of its own; some tokenizers fail on it.
        ids = tokenizer(batch, add_special_tokens=wanted, verbose=False)["input_ids"]
        for place, tokens in zip(places, ids, strict=True):
            ended = wanted and end is not None and len(tokens) > 1 and tokens[-1] == end
            results[place] = list(tokens[:-1] if ended else tokens)
    return results
