"""How people write the values of an axis, in the form and on the command line."""

from __future__ import annotations

import math
import re

MAX_VALUES = 128
_RANGE = re.compile(r"^(?P<low>\S+?)\s*\.\.\s*(?P<high>\S+?)(?:\s*[x×*]\s*(?P<factor>\S+))?$")


def parse_axis(text: str) -> list[float]:
    """The values that ``text`` names, in order, without repeats.

    Values are separated by commas or spaces. ``2^5`` is a power. ``low..high`` doubles from low to high;
    ``low..high x10`` multiplies by 10 instead; both ends are included where the steps meet them.

    Args:
        text: What the user typed.

    Returns:
        At most 128 finite values above 0.

    Raises:
        ValueError: If a part is no number, not above 0, or a range never ends; the message names it.

    >>> parse_axis("1, 2, 4")
    [1.0, 2.0, 4.0]
    >>> parse_axis("2^5..2^8")
    [32.0, 64.0, 128.0, 256.0]
    >>> parse_axis("1e-5..1e-3 x10")
    [1e-05, 0.0001, 0.001]
    """
    values: list[float] = []
    for part in _parts(text):
        match = _RANGE.match(part)
        values += _range(part, match) if match else [_number(part, part)]
    unique = list(dict.fromkeys(values))
    if len(unique) > MAX_VALUES:
        raise ValueError(f"got {len(unique)} values: an axis holds at most {MAX_VALUES}")
    return unique


def parse_whole_axis(text: str) -> list[int]:
    """``parse_axis`` for ranks and seeds: whole numbers, 0 allowed.

    Raises:
        ValueError: If a value is not whole.

    >>> parse_whole_axis("0, 1, 2")
    [0, 1, 2]
    >>> parse_whole_axis("1..64")
    [1, 2, 4, 8, 16, 32, 64]
    """
    whole: list[int] = []
    for part in _parts(text):
        values = [0.0] if part == "0" else parse_axis(part)
        for value in values:
            if value != int(value):
                raise ValueError(f"got {value:g}: only whole numbers are allowed here")
            whole.append(int(value))
    return list(dict.fromkeys(whole))


def _parts(text: str) -> list[str]:
    # Spaces around ".." and "x" belong to a range; every other space or comma separates values.
    tight = re.sub(r"\s*\.\.\s*", "..", text.strip())
    tight = re.sub(r"(?<=\S)\s*[x×*]\s*(?=\d)", "x", tight)
    return [part for part in re.split(r"[,;\s]+", tight) if part]


def _range(part: str, match: re.Match[str]) -> list[float]:
    low, high = _number(match["low"], part), _number(match["high"], part)
    factor = _number(match["factor"], part) if match["factor"] else 2.0
    if factor <= 1:
        raise ValueError(f"got {part!r}: the factor of a range must be above 1")
    if high < low:
        raise ValueError(f"got {part!r}: write the smaller end of a range first")
    count = math.floor(math.log(high / low) / math.log(factor) + 1e-9) + 1
    if count > MAX_VALUES:
        raise ValueError(f"got {part!r}: that is {count} values, an axis holds at most {MAX_VALUES}")
    return [float(f"{low * factor**index:.12g}") for index in range(count)]


def _number(text: str, part: str) -> float:
    base, _, exponent = text.partition("^")
    try:
        value = float(base) ** float(exponent) if exponent else float(base)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise ValueError(f"got {part!r}: write numbers such as 32, 2e-4, 2^5 or a range 1..64") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"got {part!r}: values must be finite and above 0")
    return value
