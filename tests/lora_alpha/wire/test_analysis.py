"""Every record of the analysis crosses the wire whole, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model

from lora_alpha.metrics import Metric
from lora_alpha.wire.analysis import Advice, Read
from lora_alpha.wire.base import Answer

ANSWERS: list[type[Any]] = [*Read.__subclasses__(), *Answer.__subclasses__(), Advice]
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=5),
    int: st.integers(-(2**53), 2**53),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    NoneType: st.none(),
}


def fields_of(kind: type[Any]) -> dict[str, Any]:
    """Type by field of a model or a dataclass; nothing for other types."""
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    hints = get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)} if hints else {}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type that a record may hold."""
    parts = get_args(hint)
    match get_origin(hint):
        case None if hint in LEAVES:
            return LEAVES[hint]
        case None:
            return st.builds(hint, **{name: values(part) for name, part in fields_of(hint).items()})
        case origin if origin is Literal:
            return st.sampled_from(parts)
        case origin if origin in {Union, UnionType}:
            return st.one_of(map(values, parts))
        case origin if origin is dict:
            return st.dictionaries(values(parts[0]), values(parts[1]), max_size=2)
        case origin if origin in {list, tuple}:
            return st.lists(values(parts[0]), max_size=2).map(origin)
    raise AssertionError(f"{hint} is no type of a record")


def plain(hint: Any) -> Any:
    """One value of a type: ones, first choices, nothing in lists."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return parts[0]
    if parts:
        return None if NoneType in parts else get_origin(hint)()
    inside = {name: plain(part) for name, part in fields_of(hint).items()}
    return hint(**inside) if inside else hint(1)


def holding(number: float, hint: Any) -> Any:
    """A value of a type with this number in it; None where the type has no room for one."""
    if hint is float:
        return number
    for part in get_args(hint):
        inside = holding(number, part)
        if inside is not None:
            return {dict: {0: inside}, tuple: (inside,), list: [inside]}.get(get_origin(hint), inside)
    return None


def nested(hint: Any) -> set[type[Any]]:
    """The dataclasses inside a type, itself included."""
    inside = [*get_args(hint), *(fields_of(hint).values() if isinstance(hint, type) else ())]
    own = {hint} if isinstance(hint, type) and dataclasses.is_dataclass(hint) else set()
    return own.union(*(nested(part) for part in inside if not isinstance(part, str)))


RECORDS = sorted(set().union(*(nested(answer) for answer in ANSWERS)), key=lambda record: record.__name__)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_what_the_service_sends_is_what_the_client_has(answer: type[Any], data: st.DataObject) -> None:
    sent = data.draw(values(answer))
    text = TypeAdapter(answer).dump_json(sent)
    assert TypeAdapter(answer).validate_json(text) == sent
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_with_a_number_that_is_none_cannot_be_sent(record: type[Any]) -> None:
    one_record = create_model("OneRecord", __base__=Answer, field=(record, ...))
    whole = plain(record)
    one_record(field=whole)
    for name, hint in fields_of(record).items():
        for broken in (holding(math.nan, hint), holding(math.inf, hint)):
            if broken is not None:
                with pytest.raises(ValidationError, match="finite"):
                    one_record(field=dataclasses.replace(whole, **{name: broken}))


def test_records_are_those_of_the_analysis() -> None:
    assert {record.__module__.rpartition(".")[0] for record in RECORDS if record not in {Advice, Metric}} == {
        "lora_alpha.analysis"
    }
    assert {field.name for field in dataclasses.fields(Advice)} - {
        field.name for field in dataclasses.fields(Advice.__mro__[1])
    } == {*Read.model_fields, "bounded"}


def test_an_unknown_field_is_refused() -> None:
    item = {"name": "α = r", "coefficient": 1, "exponent": 1, "colour": "red"}
    body = {"sweep_id": "a", "objective": "final", "laws": [], "rules": [item]}
    laws = next(answer for answer in ANSWERS if answer.__name__ == "Laws")
    with pytest.raises(ValidationError, match="colour"):
        laws.model_validate(body)
