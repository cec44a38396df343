from __future__ import annotations

import pytest
from pydantic import ValidationError

from dashboard.components.probe_form import NUMBERS, POINTS, bodies, form
from lora_alpha.catalog import WORKLOADS
from lora_alpha.spec import ProbeSettings, ProbeSpec
from lora_alpha.wire.sweeps import WorkloadItem

TYPED = {
    "kind": "top",
    "space": "both",
    "dtype": "float64",
    "per_layer": False,
    "run": "abc",
    "step": "0",
    "workload": "mlp",
    "rank": "8",
    "alpha": "64",
    "seed": "1",
    **dict.fromkeys(NUMBERS, ""),
}


def test_both_spaces_are_two_probes_at_one_point():
    lora, full = bodies("run", {**TYPED, "tolerance": "1e-4"})
    assert lora == {
        "kind": "top",
        "dtype": "float64",
        "run": "abc",
        "step": "0",
        "tolerance": "1e-4",
        "space": "lora",
    }
    assert full == {**lora, "space": "full"}
    assert ProbeSpec.model_validate(lora).tolerance == 1e-4


def test_the_end_of_a_run_is_no_step():
    (body,) = bodies("run", {**TYPED, "step": "end", "space": "full"})
    assert "step" not in body
    assert ProbeSpec.model_validate(body).step is None


def test_a_fresh_point_leaves_the_run_out():
    (body,) = bodies("fresh", {**TYPED, "space": "lora", "per_layer": True})
    spec = ProbeSpec.model_validate(body)
    assert (spec.run, spec.workload, spec.rank, spec.alpha, spec.seed) == (None, "mlp", 8, 64.0, 1)
    assert spec.per_layer


def test_every_field_of_the_form_is_one_of_the_api():
    names = {*NUMBERS, *(name for names in POINTS.values() for name in names)}
    assert names <= set(ProbeSpec.model_fields)
    with pytest.raises(ValidationError, match="tolerance"):
        ProbeSpec.model_validate(bodies("fresh", {**TYPED, "tolerance": "small"})[0])


def test_numbers_say_what_they_are_and_what_stands_without_them():
    info = WORKLOADS["mlp"]
    words = {
        name: getattr(info, name)
        for name in ("name", "family", "title", "summary", "regime", "metric", "forgetting")
    }
    item = WorkloadItem(id="mlp", options_schema={}, defaults={}, **words)
    page = form(None, [], [item])
    shown = {
        part.id["name"]: part for part in page._traverse() if isinstance(getattr(part, "id", None), dict)
    }
    declared = ProbeSettings.model_fields
    for name in NUMBERS:
        assert shown[name].label == declared[name].title
        assert shown[name].description.startswith(declared[name].description)
    assert shown["tolerance"].description == "Relative residual. 1e-3 unless given."
    assert shown["batch_size"].description == "As trained unless given."
    assert {"tolerance", "max_products", "probe_seed"} < set(NUMBERS)
