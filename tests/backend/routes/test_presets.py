from __future__ import annotations

from lora_alpha.catalog.presets import PRESETS
from lora_alpha.wire.client import Client


def test_every_preset_is_listed_and_plans_once_its_needs_are_filled_in(client: Client) -> None:
    items = client.presets().items
    assert [item.id for item in items] == list(PRESETS)
    for item in items:
        assert item.expect, f"{item.id} says nothing of what it showed"
        plan = client.plan_sweep(item.request)
        assert {error.field for error in plan.errors} == {f"workload_options.{name}" for name in item.needs}
        filled = dict(item.request.get("workload_options", {}), **dict.fromkeys(item.needs, "somewhere"))
        assert client.plan_sweep({**item.request, "workload_options": filled}).valid


def test_the_sweep_of_a_preset_names_it_in_its_tags(client: Client) -> None:
    for item in client.presets().items:
        assert f"preset:{item.id}" in item.request["tags"]
