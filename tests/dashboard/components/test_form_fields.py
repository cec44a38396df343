"""The form knows every training field from its declaration."""

from __future__ import annotations

import pytest

from dashboard.components.form_fields import FIELDS, MORE_TRAINING, TRAINING, field_inputs, request_of
from dashboard.forms import body_from
from lora_alpha.catalog import WORKLOADS
from lora_alpha.catalog.resolve import resolve
from lora_alpha.request import SweepRequest
from lora_alpha.spec import TrainSettings

DEFAULTS = WORKLOADS["mlp"].defaults.model_dump(mode="json")
GIVEN = {
    "steps": 1_234_567,
    "optimizer": "sgd",
    "betas": [0.5, 0.7512345678],
    "eps": 1.23456789e-7,
    "clip": 0.123456789,
    "lora_dropout": 0.1,
    "checkpoint_steps": 3,
    "dynamics_every": 0,
    "dtype": "float64",
    "init_adapter": "folder",
}


def controls(given):
    found = {}
    for part in field_inputs(DEFAULTS, [], given):
        for control in part._traverse():
            if isinstance(getattr(control, "id", None), dict):
                found[control.id["name"]] = control
    return found


@pytest.mark.parametrize("name", TrainSettings.model_fields)
def test_every_training_field_has_a_control_with_title_and_help(name):
    control, declared = controls({})[name], TrainSettings.model_fields[name]
    assert (control.label, control.description) == (declared.title, declared.description)


def test_choices_and_whole_numbers_have_the_declared_limits():
    shown = controls({})
    assert shown["optimizer"].data == ["adamw", "sgd"]
    assert shown["dtype"].data == ["float64", "float32", "bfloat16", "float16"]
    assert (shown["steps"].min, shown["steps"].max) == (1, 10_000_000)
    assert (shown["warmup"].min, getattr(shown["warmup"], "max", None)) == (0, None)


def test_what_is_out_of_bounds_is_left_for_the_plan_to_say():
    assert {controls({})[name].clampBehavior for name in ("steps", "eval_every")} == {"none"}


def test_the_first_fields_are_few_and_the_rest_is_folded_away():
    assert TRAINING == ("steps", "batch_size", "optimizer", "lr_schedule", "warmup", "eval_every")
    assert {*TRAINING, *MORE_TRAINING} == set(TrainSettings.model_fields)


def test_an_older_sweep_comes_back_to_the_last_digit():
    spec = resolve(SweepRequest.model_validate({"workload": "mlp", **GIVEN}))
    shown = controls(request_of(spec.model_dump(mode="json")))
    typed = {name: shown[name].value for name in TrainSettings.model_fields}
    again = resolve(SweepRequest.model_validate(body_from("mlp", typed, {})))
    assert again.train == spec.train


def test_another_workload_shows_its_own_defaults():
    digits = WORKLOADS["digits"].defaults.model_dump(mode="json")
    assert not any(FIELDS[name].keep for name in TrainSettings.model_fields)
    assert FIELDS["dynamics_every"].show(digits) == 50
    assert FIELDS["dynamics_every"].show(DEFAULTS) == 60
    assert FIELDS["clip"].show(digits) == ""
