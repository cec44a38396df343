"""The page's address holds its whole view: query string ↔ values of the controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

SEPARATOR = "~"  # between the values of one control; a comma would be escaped


def read_view(
    search: str | None, defaults: Mapping[str, Any], former: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Control values from a query string, defaults where it is silent; unknown names are ignored.

    Args:
        search: The query string, with its question mark.
        defaults: Name → value where the address says nothing.
        former: Name → the one that old addresses have in its place.

    >>> read_view("?tab=law&ranks=1~4", {"tab": "runs", "ranks": [], "smooth": "0"})
    {'tab': 'law', 'ranks': ['1', '4'], 'smooth': '0'}
    >>> read_view("?scale=linear", {"axis_scale": "log"}, {"axis_scale": "scale"})
    {'axis_scale': 'linear'}
    """
    given = parse_qs((search or "").removeprefix("?"))
    values = {}
    for name, default in defaults.items():
        text = given.get(name, given.get((former or {}).get(name, name), [None]))[0]
        if text is None:
            values[name] = default
        else:
            values[name] = (
                [part for part in text.split(SEPARATOR) if part] if isinstance(default, list) else text
            )
    return values


def write_view(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The query string of what differs from the defaults; a number and its text are the same.

    >>> write_view({"tab": "law", "ranks": ["1", "4"]}, {"tab": "runs", "ranks": []})
    '?tab=law&ranks=1~4'
    >>> write_view({"rank": 8}, {"rank": "8"})
    ''
    """
    texts = {name: _text(value) for name, value in values.items() if name in defaults and value is not None}
    changed = {name: text for name, text in texts.items() if text != _text(defaults[name])}
    return "?" + urlencode(changed, safe=SEPARATOR) if changed else ""


def _text(value: Any) -> str:
    return SEPARATOR.join(map(str, value)) if isinstance(value, list) else str(value)
