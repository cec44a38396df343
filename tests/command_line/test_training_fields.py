from __future__ import annotations

import pytest
from typer.testing import CliRunner

from command_line.app import app
from command_line.remote import read_request
from command_line.training_fields import list_training, read_training
from lora_alpha.errors import InvalidSpec
from lora_alpha.spec import TrainSettings

TYPED = {
    "steps": "77",
    "batch_size": "3",
    "optimizer": "sgd",
    "lr_schedule": "constant",
    "warmup": "4",
    "eval_every": "6",
    "weight_decay": "0.3",
    "betas": "0.5,0.75",
    "eps": "1e-5",
    "clip": "2.5",
    "lora_dropout": "0.2",
    "checkpoint_steps": "9",
    "dynamics_every": "8",
    "dtype": "float64",
    "init_adapter": "a=b",
}


def test_every_training_field_can_be_given():
    assert list(TYPED) == list(TrainSettings.model_fields)
    given = [f"{name}={value}" for name, value in TYPED.items()]
    request = read_request(None, workload="mlp", train=given)
    asked = TrainSettings.model_validate(request.model_dump(include=set(TYPED)))
    assert asked == TrainSettings.model_validate(TYPED)


def test_what_is_given_is_laid_over_a_preset():
    request = read_request(None, "identity", workload=None, train=["steps=7"])
    assert request.steps == 7
    assert request.name == read_request(None, "identity", workload=None).name


@pytest.mark.parametrize("given", ["?", "step=3", "=3", "steps"])
def test_a_wrong_name_is_answered_with_every_name_and_its_help(given):
    with pytest.raises(InvalidSpec) as caught:
        read_training([given])
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"got {given!r}: write NAME=VALUE, where NAME is one of\n")
    lines = list_training().splitlines()
    for line, (name, field) in zip(lines, TrainSettings.model_fields.items(), strict=True):
        assert line in problem.message
        assert line.split()[0] == name
        assert field.description in line
    assert lines[0].endswith("(integer, ≥ 1, ≤ 10,000,000)")
    assert lines[2].endswith("(adamw | sgd)")


def test_a_wrong_value_says_what_is_allowed():
    with pytest.raises(InvalidSpec, match="optimizer: got 'adam': input should be 'adamw' or 'sgd'"):
        read_request(None, workload="mlp", train=["optimizer=adam"])


def test_the_verb_passes_them_on():
    result = CliRunner().invoke(app, ["sweep", "--workload", "mlp", "--train", "dtype=int8"])
    assert isinstance(result.exception, InvalidSpec)
    assert [problem.field for problem in result.exception.problems] == ["dtype"]
