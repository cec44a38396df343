"""Cursors: the sort key of a page's last row, opaque to callers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from lora_alpha.errors import FieldProblem, InvalidSpec


def encode_cursor(*key: Any) -> str:
    """The cursor that stands for a row's sort key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, types: Sequence[type | tuple[type, ...]]) -> list[Any]:
    """The sort key in ``cursor``, whose parts must be of ``types``.

    Raises:
        InvalidSpec: If it is not a cursor of this listing.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        key = None
    if (
        not isinstance(key, list)
        or len(key) != len(types)
        or not all(isinstance(part, kind) for part, kind in zip(key, types, strict=True))
    ):
        raise InvalidSpec(
            [FieldProblem("cursor", f"got {cursor[:80]!r}: pass the 'next' of the page before unchanged")]
        )
    return key
