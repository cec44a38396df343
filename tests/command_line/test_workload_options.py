from __future__ import annotations

import pytest
from typer.testing import CliRunner

from command_line.app import app
from command_line.remote import read_request
from command_line.workload_options import read_settings
from lora_alpha.errors import InvalidSpec


def test_values_are_json_where_they_can_be():
    given = ["a=1", "b=0.5", "c=true", "d=text", "e=x=y", 'f={"q_proj": 4}', "g="]
    assert read_settings(given) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": "text",
        "e": "x=y",
        "f": {"q_proj": 4},
        "g": "",
    }


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(InvalidSpec, match="set: got 'model': write NAME=VALUE"):
        read_settings(["model"])


def test_a_preset_is_filled_in_from_the_command_line():
    request = read_request(
        None, "gsm8k-sft", workload=None, steps=7, workload_options=["model=m", "data=d", "max_tokens=64"]
    )
    assert request.steps == 7
    assert request.workload_options["model"] == "m"
    assert request.workload_options["max_tokens"] == 64
    assert request.workload_options["completion_column"] == "answer"


def test_inspect_needs_a_service():
    result = CliRunner().invoke(app, ["inspect", "hf-sft", "--set", "model=x", "--api", "http://127.0.0.1:9"])
    assert result.exit_code != 0
