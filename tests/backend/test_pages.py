from __future__ import annotations

import pytest

from backend.pages import decode_cursor, encode_cursor
from lora_alpha.errors import InvalidSpec


@pytest.mark.parametrize("key", [(1.5, "a"), (None, "x"), ("ü/+?", "b"), (2**53, "c")])
def test_a_cursor_comes_back_as_it_was(key: tuple[object, str]) -> None:
    assert decode_cursor(encode_cursor(*key), ((float, int, str, type(None)), str)) == list(key)


@pytest.mark.parametrize(
    "cursor", ["", "x", "====", "é", encode_cursor(1.0), encode_cursor("a", "b"), "W10" * 50]
)
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidSpec, match="pass the 'next' of the page before"):
        decode_cursor(cursor, (float, str))
