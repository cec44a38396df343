"""Pictures with captions: read through Pillow, prepared as the model's own preprocessor says, kept as bytes.

Pixels are resized and cropped once and cached as uint8; scaling to the model's range happens per batch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from lora_alpha.workloads.base import Progress
from lora_alpha.workloads.huggingface.data.sources import Roots
from lora_alpha.workloads.huggingface.data.split_rows import Located
from lora_alpha.workloads.huggingface.problems import problem

PREPROCESSOR = "preprocessor_config.json"
BLOCK = 64  # pictures between two reports


@dataclass(frozen=True)
class PixelRange:
    """From bytes to what the model reads: (value · factor − mean) / std by channel."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def scaled(self, pixels: NDArray[np.uint8], *, like: Tensor) -> Tensor:
        """Pixels (R, channels, height, width) in the dtype and on the device of ``like``."""
        values = torch.from_numpy(np.ascontiguousarray(pixels)).to(like.device).double() * self.factor
        mean, std = (torch.tensor(part, device=like.device).double() for part in (self.mean, self.std))
        return ((values - mean[:, None, None]) / std[:, None, None]).to(like.dtype)


def load_preprocessor(folder: Path) -> Any:
    """The model's own image preprocessor, on Pillow.

    Raises:
        InvalidSpec: If the folder has none, or transformers does not understand it.
    """
    if not (folder / PREPROCESSOR).is_file():
        raise problem("model", f"{folder} has no {PREPROCESSOR}: copy the model's there")
    try:
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        raise problem("model", f"{folder / PREPROCESSOR} is not understood: {str(error)[:300]}") from error


def pixel_range(processor: Any) -> PixelRange:
    """What the preprocessor does after resizing."""
    channels = len(processor.image_mean or (0.0, 0.0, 0.0))
    normalises = bool(processor.do_normalize)
    return PixelRange(
        factor=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        mean=tuple(processor.image_mean) if normalises else (0.0,) * channels,
        std=tuple(processor.image_std) if normalises else (1.0,) * channels,
    )


def cached_pixels(
    rows: Sequence[Located], column: str, *, processor: Any, cache_dir: Path, roots: Roots
) -> Generator[Progress, None, NDArray[np.uint8]]:
    """Prepared pixels of every row, (rows, channels, height, width), read from the cache or made.

    The folder ``pictures/<hash>`` appears by rename; the hash is over the pictures' bytes and the
    preprocessor.

    Raises:
        InvalidSpec: If a picture is missing, outside the allowed folders, or no picture.
    """
    digest = hashlib.sha256(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    for done, item in enumerate(rows):
        if done % BLOCK == 0:
            yield Progress("looking for known pictures", done, len(rows))
        digest.update(hashlib.sha256(_content(item, column, roots)).digest())
    folder = cache_dir / "pictures" / digest.hexdigest()[:24]
    if not (folder / "pixels.npy").exists():
        yield from _make(rows, column, folder, processor=processor, roots=roots)
    pixels: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r")
    return pixels


def _make(
    rows: Sequence[Located], column: str, folder: Path, *, processor: Any, roots: Roots
) -> Generator[Progress, None, None]:
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    pixels: Any = None
    try:
        for place, item in enumerate(rows):
            if place % BLOCK == 0:
                yield Progress("preparing pictures", place, len(rows))
            prepared = _prepare(item, column, processor, roots)
            if pixels is None:
                shape = (len(rows), *prepared.shape)
                pixels = np.lib.format.open_memmap(temporary / "pixels.npy", "w+", np.uint8, shape)
            if prepared.shape != pixels.shape[1:]:
                raise problem(
                    "model",
                    f"its preprocessor leaves pictures of different sizes ({prepared.shape} and "
                    f"{pixels.shape[1:]}): one that crops or resizes to a fixed size is needed",
                )
            pixels[place] = prepared
        pixels.flush()
        del pixels
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    yield Progress("preparing pictures", len(rows), len(rows))


def _prepare(item: Located, column: str, processor: Any, roots: Roots) -> NDArray[np.uint8]:
    content = _content(item, column, roots)
    try:
        with warnings.catch_warnings():
            # A picture of absurd size is an attack or a mistake: refuse what Pillow only warns about.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise problem(
            "image_column", f"{item.file}: {_named(item, column)} is no picture that Pillow reads: {error}"
        ) from None
    found = processor(images=[picture], do_rescale=False, do_normalize=False, return_tensors="np")
    values = np.asarray(found["pixel_values"])[0]
    bytes_CHW: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return bytes_CHW


def _content(item: Located, column: str, roots: Roots) -> bytes:
    """The bytes of a row's picture, whichever way the row has it."""
    value = item.row.get(column)
    if isinstance(value, dict):  # an image of the datasets library
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise problem(
            "image_column",
            f"{item.file}: a row has {str(value)[:60]!r} in column {column} instead of a path or the bytes "
            "of a picture",
        )
    path = (item.file.parent / value).resolve()
    allowed = [item.file.parent.resolve(), *(root.resolve() for root in roots or ())]
    if roots is not None and not any(path.is_relative_to(root) for root in allowed):
        raise problem("image_column", f"{item.file}: the picture {value} lies outside the allowed folders")
    try:
        return path.read_bytes()
    except OSError:
        raise problem(
            "image_column",
            f"{item.file}: there is no picture {value} beside it (looked for {path}); paths are relative to "
            "the data file",
        ) from None


def _named(item: Located, column: str) -> str:
    value = item.row.get(column)
    return value if isinstance(value, str) else f"column {column} of a row"
