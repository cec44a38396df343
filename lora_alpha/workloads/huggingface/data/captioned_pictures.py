"""Pairs of pictures and captions on both sides of a split: what a dual encoder learns from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.catalog.huggingface_encoders import DualEncoderOptions
from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.pictures import (
    PixelRange,
    cached_pixels,
    load_preprocessor,
    pixel_range,
)
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.split_rows import Located, find_files, needed_column, split_rows
from lora_alpha.workloads.huggingface.data.tables import read_table
from lora_alpha.workloads.huggingface.data.tokens import TokenSet
from lora_alpha.workloads.huggingface.problems import problem

IMAGES = ("image", "image_path", "file_name", "path", "img")
CAPTIONS = ("caption", "text", "captions", "description", "label")


@dataclass(frozen=True)
class Pairs:
    """One side.

    Attributes:
        captions: Tokens, ended by the end-of-text token.
        pixels: (pairs, channels, height, width) uint8.
        caption_numbers: Equal for equal captions, (pairs,).
    """

    captions: TokenSet
    pixels: NDArray[np.uint8]
    caption_numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.caption_numbers)


@dataclass(frozen=True)
class CaptionedPictures:
    """Both sides, and how pixels are scaled."""

    train: Pairs
    held_out: Pairs
    scaling: PixelRange
    facts: dict[str, Any]


def prepare_captioned_pictures(
    options: DualEncoderOptions, *, folder: Path, tokenizer: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, CaptionedPictures]:
    """Read, split, tokenise and prepare the pictures, which are cached.

    Raises:
        InvalidSpec: If a file, a column or a picture is wrong.
    """
    processor = load_preprocessor(folder)
    files = find_files(options, roots=roots)
    columns = read_table(files.train[:1], option="data", limit=1).columns
    image = needed_column(options.image_column, IMAGES, columns, option="image_column")
    caption = needed_column(options.caption_column, CAPTIONS, columns, option="caption_column")
    split = split_rows(options, files, keys=[image, caption])
    numbers: dict[str, int] = {}
    sides, num_cut = [], 0
    for rows in (split.train, split.held_out):
        texts = [_text(item, caption) for item in rows]
        tokens, cut = _encode(texts, tokenizer, max_tokens=options.max_tokens)
        num_cut += cut
        pixels = yield from cached_pixels(rows, image, processor=processor, cache_dir=cache_dir, roots=roots)
        known = np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)
        sides.append(Pairs(TokenSet.of(tokens), pixels, known))
    train, held_out = sides
    lengths = np.concatenate([train.captions.lengths, held_out.captions.lengths])
    facts = split.facts({"train": train, "held_out": held_out}, lengths=lengths) | {
        "files": [str(file) for file in files.train],
        "test_files": [str(file) for file in files.test],
        "rows": len(lengths),
        "rendering": f"{image} ↔ {caption}",
        "sample": {
            "prompt": str(split.train[0].row[image])[:200],
            "completion": _text(split.train[0], caption),
        },
        "num_captions": len(numbers),
        "picture": "×".join(map(str, train.pixels.shape[1:])),
        "num_truncated": num_cut,
    }
    return CaptionedPictures(train, held_out, pixel_range(processor), facts)


def _encode(
    texts: Sequence[str], tokenizer: Any, *, max_tokens: int
) -> tuple[list[tuple[list[int], int]], int]:
    """Tokens of each caption with the end-of-text token last, whose state stands for the caption."""
    end = tokenizer.eos_token_id
    encoded, cut = [], 0
    for ids in tokenizer(list(texts), add_special_tokens=True, verbose=False)["input_ids"]:
        body = list(ids[:-1] if end is not None and ids and ids[-1] == end else ids)
        room = max_tokens - (end is not None)
        cut += len(body) > room
        encoded.append((body[:room] + ([end] if end is not None else []), 0))
    return encoded, cut


def _text(item: Located, column: str) -> str:
    value = item.row.get(column)
    if isinstance(value, list) and value:  # several captions of one picture: the first
        value = value[0]
    if not isinstance(value, str) or not value:
        raise problem(
            "caption_column", f"{item.file}: a row has {value!r} in column {column} instead of a caption"
        )
    return value
