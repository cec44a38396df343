"""Training fields on the command line, from their declaration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.spec import TrainSettings, schema_fields


def read_training(given: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` as fields of a request, which reads the values.

    >>> read_training(["optimizer=sgd", "betas=0.9, 0.99"])
    {'optimizer': 'sgd', 'betas': '0.9, 0.99'}

    Raises:
        InvalidSpec: If one is not of that form or names no training field; lists those that there are.
    """
    fields = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in TrainSettings.model_fields:
            message = f"got {text!r}: write NAME=VALUE, where NAME is one of\n{list_training()}"
            raise InvalidSpec([FieldProblem("train", message)])
        fields[name] = value
    return fields


def list_training() -> str:
    """Every training field on a line: name, help, what is allowed."""
    return "\n".join(
        f"  {name:18}{part['title']}: {part['description']} ({_allowed(part)})"
        for name, part in schema_fields(TrainSettings).items()
    )


def _allowed(part: dict[str, Any]) -> str:
    """Values that a field's JSON schema allows, in a few words.

    >>> _allowed({"type": "integer", "minimum": 1, "maximum": 9000})
    'integer, ≥ 1, ≤ 9,000'
    """
    if "enum" in part:
        return " | ".join(part["enum"])
    if part["type"] == "array":
        return " and ".join(_allowed(item) for item in part["prefixItems"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(
        [part["type"], *(f"{sign} {part[key]:,.10g}" for key, sign in signs.items() if key in part)]
    )
