"""The one place where errors become HTTP statuses: problem details (RFC 9457) for every one of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from lora_alpha.catalog.resolve import problems_from, resolve, shorten
from lora_alpha.errors import (
    Conflict,
    FieldProblem,
    FitError,
    InvalidSpec,
    LoraAlphaError,
    NotFound,
    ProbeError,
    WorkloadError,
)
from lora_alpha.request import SweepRequest
from lora_alpha.wire.sweeps import FieldError, Problem

LOG = logging.getLogger("lora_alpha.api")
STATUS: Mapping[type[LoraAlphaError], HTTPStatus] = {
    InvalidSpec: HTTPStatus.UNPROCESSABLE_ENTITY,
    ProbeError: HTTPStatus.UNPROCESSABLE_ENTITY,
    WorkloadError: HTTPStatus.UNPROCESSABLE_ENTITY,
    FitError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    int(status): {"model": Problem, "content": {"application/problem+json": {}}}
    for status in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    )
}


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with problem details."""
    app.add_exception_handler(LoraAlphaError, _own)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _no_database)
    app.add_exception_handler(Exception, _bug)


def problem(status: HTTPStatus, detail: str = "", errors: list[FieldProblem] | None = None) -> JSONResponse:
    """A problem-details response."""
    body = Problem(
        title=status.phrase,
        status=int(status),
        detail=detail,
        errors=[FieldError(field=error.field, message=error.message) for error in errors or []],
    )
    return JSONResponse(body.model_dump(), int(status), media_type="application/problem+json")


def all_problems(body: Any, error: ValidationError | RequestValidationError) -> list[FieldProblem]:
    """Every problem of a sweep's body: the malformed fields, and those that make no sense together."""
    found = _located(error)
    if not isinstance(body, dict) or "workload" not in body:
        return found
    broken = {item.field.split(".")[0] for item in found}
    sound = {name: value for name, value in body.items() if name not in broken}
    try:
        resolve(SweepRequest.model_validate(sound))
    except InvalidSpec as more:
        found += [item for item in more.problems if item.field not in broken]
    except ValidationError:
        pass  # what makes it so is among the problems already
    return found


def _located(error: ValidationError | RequestValidationError) -> list[FieldProblem]:
    if isinstance(error, ValidationError):
        return problems_from(error)
    found = []
    for item in error.errors():
        place, *path = item["loc"]
        field = ".".join(str(part) for part in path) or str(place)
        given = "" if item["type"] in {"missing", "json_invalid"} else f"got {shorten(item.get('input'))}: "
        found.append(FieldProblem(field, f"{given}{item['msg'][0].lower()}{item['msg'][1:]}"))
    return found


async def _own(_: Request, error: Exception) -> JSONResponse:
    status = next(
        (status for kind, status in STATUS.items() if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    problems = list(error.problems) if isinstance(error, InvalidSpec) else []
    return problem(status, str(error), problems)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    sweep = request.url.path.rstrip("/").endswith("/sweeps")
    found = all_problems(error.body, error) if sweep else _located(error)
    detail = f"{len(found)} invalid field{'s' if len(found) != 1 else ''}"
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, found)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = problem(HTTPStatus(error.status_code), str(error.detail))
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _allowed_methods(request)):
        response.headers["Allow"] = ", ".join(allowed)
    return response


def _allowed_methods(request: Request) -> list[str]:
    """Every method of the path; the router names those of the first route that it finds alone."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return sorted(
        method.upper()
        for template, methods in request.app.openapi().get("paths", {}).items()
        if compile_path(template)[0].match(path)
        for method in methods
    )


async def _no_database(_: Request, error: Exception) -> JSONResponse:
    LOG.error("the database does not answer: %s", error)
    response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer: try again soon")
    response.headers["Retry-After"] = "2"
    return response


async def _bug(request: Request, error: Exception) -> JSONResponse:
    # What went wrong is in the server's log; a stranger learns only that it did.
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a defect of the service: see its log")
