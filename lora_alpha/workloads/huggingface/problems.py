"""How what is wrong with a model or a data file is said: the option, what was given, what to do."""

from __future__ import annotations

from lora_alpha.errors import FieldProblem, InvalidSpec


def problem(option: str, message: str) -> InvalidSpec:
    """The error about one workload option, ready to raise.

    >>> str(problem("data", "there is no file x.csv"))
    'workload_options.data: there is no file x.csv'
    """
    return InvalidSpec([FieldProblem(f"workload_options.{option}", message)])


def counted(number: int, one: str, many: str) -> str:
    """``number`` with the words that go with it.

    >>> counted(1, "row is", "rows are"), counted(2000, "row is", "rows are")
    ('1 row is', '2,000 rows are')
    """
    return f"{number:,} {one if number == 1 else many}"
