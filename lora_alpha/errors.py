"""One error tree. HTTP status codes for these live in ``backend/problems.py`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LoraAlphaError(Exception):
    """Base of every error this project raises for its users."""


@dataclass(frozen=True)
class FieldProblem:
    """One invalid field of a request: where it is ("" for the whole), what was given, what to do."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidSpec(LoraAlphaError):
    """A specification that cannot be run; carries *every* invalid field, not the first."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class NotFound(LoraAlphaError):
    """A sweep, run, probe or job that does not exist."""


class Conflict(LoraAlphaError):
    """The request does not fit the current state (resume of a finished sweep, say)."""


class LeaseLost(LoraAlphaError):
    """Another worker owns this job now; whoever sees this must stop writing."""


class FitError(LoraAlphaError):
    """Too little or too degenerate data for the requested fit; the message says which."""


class WorkloadError(LoraAlphaError):
    """A workload cannot be prepared: missing file, wrong column, unsupported model."""


class ProbeError(LoraAlphaError):
    """A Hessian probe that would not give a truthful number."""


class ServiceUnreachable(LoraAlphaError):
    """The API did not answer; the message names the address that was tried."""


class MissingExtra(LoraAlphaError, ImportError):
    """Something of an optional extra is not installed; the message says which ``pip install`` brings it."""
