"""α over time and planned probes, as typed into the new-sweep form."""

from __future__ import annotations

import pytest

from dashboard.components.form_fields import FIELDS
from dashboard.forms import FormError, body_from, show_schedule
from lora_alpha.request import SweepRequest
from lora_alpha.spec import AlphaSchedule


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("constant", AlphaSchedule()),
        ("ramp 0.1 in 100", AlphaSchedule(kind="ramp", start=0.1, ramp_steps=100)),
        ("ramp 8→1 in 30", AlphaSchedule(kind="ramp", start=8, ramp_steps=30)),
        ("hold update_norm 7", AlphaSchedule(kind="hold", target_metric="update_norm", target=7)),
        ("hold drift_ratio 1e-2", AlphaSchedule(kind="hold", target_metric="drift_ratio", target=0.01)),
    ],
)
def test_a_typed_schedule_is_the_one_of_the_request_and_shows_again(text, schedule):
    body = body_from("mlp", {"alpha_schedule": text}, {})
    assert SweepRequest.model_validate(body).alpha_schedule == schedule
    again = body_from("mlp", {"alpha_schedule": show_schedule(schedule.model_dump())}, {})
    assert SweepRequest.model_validate(again).alpha_schedule == schedule


@pytest.mark.parametrize(
    "text", ["ramp", "ramp x in 100", "ramp 0.1 in soon", "hold loss 3", "hold update_norm"]
)
def test_what_is_no_schedule_is_refused_at_its_field(text):
    with pytest.raises(FormError) as caught:
        body_from("mlp", {"alpha_schedule": text}, {})
    assert list(caught.value.messages) == ["alpha_schedule"]


def test_planned_probes_need_a_moment():
    values = {"probes": "init, 100, end", "probe_kinds": "extremes, trace", "probe_spaces": "both"}
    plan = SweepRequest.model_validate(body_from("mlp", values, {})).probes
    assert plan.at == ["init", 100, "end"]
    assert (plan.kinds, plan.spaces) == (["extremes", "trace"], ["lora", "full"])
    assert "probes" not in body_from("mlp", {**values, "probes": ""}, {})
    one = body_from("mlp", {"probes": "end", "probe_kinds": "", "probe_spaces": "lora"}, {})
    assert one["probes"] == {"at": ["end"], "kinds": ["extremes"], "spaces": ["lora"]}


def test_an_older_sweep_fills_the_fields_as_they_were_typed():
    given = {
        "alpha_schedule": AlphaSchedule(kind="ramp", start=0.5, ramp_steps=7).model_dump(),
        "probes": {"at": ["init", 3], "kinds": ["top"], "spaces": ["full"]},
    }
    names = ("alpha_schedule", "probes", "probe_kinds", "probe_spaces")
    assert [FIELDS[name].show(given) for name in names] == ["ramp 0.5 in 7", "init, 3", "top", "full"]
    assert [FIELDS[name].show({}) for name in names] == ["constant", "", "extremes", "both"]
    body = body_from("mlp", {name: FIELDS[name].show(given) for name in names}, {})
    request = SweepRequest.model_validate(body)
    assert request.probes.model_dump() == given["probes"]
    assert request.alpha_schedule.model_dump() == given["alpha_schedule"]
