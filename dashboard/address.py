"""The page's address holds its whole view: query string ↔ values of the controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

SEPARATOR = "~"  # between the values of one control; a comma would be escaped


def read_view(search: str | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Control values from a query string, defaults where it is silent; unknown names are ignored.

    >>> read_view("?tab=law&ranks=1~4", {"tab": "runs", "ranks": [], "smooth": "0"})
    {'tab': 'law', 'ranks': ['1', '4'], 'smooth': '0'}
    """
    given = parse_qs((search or "").removeprefix("?"))
    values = {}
    for name, default in defaults.items():
        text = given.get(name, [None])[0]
        if text is None:
            values[name] = default
        else:
            values[name] = (
                [part for part in text.split(SEPARATOR) if part] if isinstance(default, list) else text
            )
    return values


def write_view(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The query string of what differs from the defaults.

    >>> write_view({"tab": "law", "ranks": ["1", "4"]}, {"tab": "runs", "ranks": []})
    '?tab=law&ranks=1~4'
    """
    changed = {
        name: SEPARATOR.join(map(str, value)) if isinstance(value, list) else value
        for name, value in values.items()
        if name in defaults and value is not None and value != defaults[name]
    }
    return "?" + urlencode(changed, safe=SEPARATOR) if changed else ""
