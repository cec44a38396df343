"""How requests are written and errors read, whatever they are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from lora_alpha.errors import Conflict, FieldProblem, InvalidSpec, LoraAlphaError, NotFound
from lora_alpha.wire.sweeps import Problem

Params = Mapping[str, Any]


def to_body(value: BaseModel | Params) -> Any:
    """A request as JSON has it, without what was not set."""
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else dict(value)


def to_query(params: Params | None) -> dict[str, Any] | None:
    """Parameters of a query; those that are None are left out."""
    if params is None:
        return None
    return {name: _query_text(value) for name, value in params.items() if value is not None}


def _query_text(value: Any) -> Any:
    # repr gives floats in full; httpx repeats the name for each item of a list.
    if isinstance(value, bool) or not isinstance(value, float | list | tuple):
        return value
    return repr(value) if isinstance(value, float) else [_query_text(item) for item in value]


def to_path(text: str) -> str:
    """Text as one part of a path: a slash in an id must not lead elsewhere."""
    return quote(text, safe="") or "%20"


def read_error(response: httpx.Response) -> LoraAlphaError:
    """The error that an answer of status 400 or more stands for."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return LoraAlphaError(
            f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
        )
    message = problem.detail or problem.title
    if problem.errors:
        return InvalidSpec([FieldProblem(error.field, error.message) for error in problem.errors])
    match response.status_code:
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 422:
            return InvalidSpec([FieldProblem("", message)])
        case 401 | 403:
            return LoraAlphaError(f"{message} (set LORA_ALPHA_TOKEN, or pass token=)")
    return LoraAlphaError(message)
