"""A training field is declared once; requests and resolved sweeps know it from there."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.resolve import resolve
from lora_alpha.request import SweepRequest
from lora_alpha.spec import TrainSettings, TrainSpec, schema_fields

FIELDS = schema_fields(TrainSettings)
# Of each field a value that neither the universal nor a workload's default has.
OTHER: dict[str, Any] = {
    "steps": 77,
    "batch_size": 3,
    "optimizer": "sgd",
    "lr_schedule": "constant",
    "warmup": 4,
    "eval_every": 6,
    "weight_decay": 0.3,
    "betas": (0.5, 0.75),
    "eps": 1e-5,
    "clip": 2.5,
    "lora_dropout": 0.2,
    "checkpoint_steps": 9,
    "dynamics_every": 8,
    "dtype": "float64",
    "init_adapter": "folder",
}


def trained(**fields: Any) -> TrainSpec:
    return resolve(SweepRequest.model_validate({"workload": "mlp", **fields})).train


def test_the_values_of_these_tests_cover_every_field() -> None:
    assert list(OTHER) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is(name: str) -> None:
    declared = TrainSettings.model_fields[name]
    assert declared.title
    assert declared.description
    assert declared.description.endswith(".")


@pytest.mark.parametrize("name", FIELDS)
def test_a_request_has_each_training_field_as_declared_but_open(name: str) -> None:
    asked = schema_fields(SweepRequest)[name]
    assert asked["default"] is None
    assert {**asked, "default": 0} == {**FIELDS[name], "default": 0}
    assert SweepRequest.model_validate({"workload": "mlp", name: None}) == SweepRequest(workload="mlp")


@pytest.mark.parametrize("name", FIELDS)
def test_the_request_goes_before_the_workload_and_that_before_the_universal_default(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = workload_info("mlp")
    assert getattr(trained(**{name: OTHER[name]}), name) == OTHER[name]
    assert getattr(trained(), name) == getattr(info.defaults, name)
    if "default" in FIELDS[name] and name != "dynamics_every":
        universal = TrainSettings(steps=1, batch_size=1)
        assert getattr(info.defaults, name) == getattr(universal, name)
    own = info.defaults.model_copy(update={name: OTHER[name]})
    changed = dataclasses.replace(info, defaults=own)
    monkeypatch.setattr("lora_alpha.catalog.resolve.workload_info", {"mlp": changed}.__getitem__)
    assert getattr(trained(), name) == OTHER[name]


def test_workload_defaults_are_held_to_the_bounds() -> None:
    defaults = workload_info("mlp").defaults
    with pytest.raises(ValidationError, match="less than or equal to 65536"):
        type(defaults).model_validate({**defaults.model_dump(), "batch_size": 65_537})


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"clip": 0}, "greater than 0"),
        ({"lora_dropout": 1}, "less than 1"),
        ({"betas": "0.9"}, "Field required"),
        ({"betas": "0.9, 1"}, "less than 1"),
        ({"dtype": "int8"}, "'float64', 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_a_request_is_held_to_the_bounds(field: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SweepRequest.model_validate({"workload": "mlp", **field})


def test_two_numbers_may_be_typed() -> None:
    assert trained(betas=" 0.8,0.95 ").betas == (0.8, 0.95)
    assert trained(betas=[0.8, 0.95]).betas == (0.8, 0.95)


def test_a_request_survives_json() -> None:
    request = SweepRequest.model_validate({"workload": "mlp", **OTHER})
    sent = request.model_dump_json(exclude_unset=True)
    assert TypeAdapter(SweepRequest).validate_json(sent) == request
