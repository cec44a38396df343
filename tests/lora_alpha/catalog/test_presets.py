import re

import pytest

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.presets import GSM8K_FORM, PRESETS, Preset, preset
from lora_alpha.catalog.resolve import resolve
from lora_alpha.errors import InvalidSpec
from lora_alpha.spec import expand


def filled_in(item: Preset):
    """The preset's request with what only the user knows."""
    needed = workload_info(item.request.workload).options.model_fields.items()
    given = {name: "x" for name, field in needed if field.is_required()} | item.request.workload_options
    return item.request.model_copy(update={"workload_options": given})


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_a_valid_sweep(name):
    assert PRESETS[name].name == name
    runs = expand(resolve(filled_in(preset(name))))
    assert len({run.name for run in runs}) == len(runs)
    assert len({run.configuration.seed for run in runs}) in (1, 3, 5)


def test_sizes():
    sizes = {name: len(expand(resolve(filled_in(item)))) for name, item in PRESETS.items()}
    assert sizes == {
        "alpha-vs-lr": 39,
        "alpha-over-time": 150,
        "sharpness-vs-lr": 120,
        "alpha-and-lr": 165,
        "identity": 24,
        "spectral-suppression": 18,
        "gsm8k-sft": 45,
        "gsm8k-rl": 45,
    }


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InvalidSpec, match="alpha-vs-lr, alpha-and-lr, identity"):
        preset("nope")


def test_gsm8k_needs_a_model_and_a_folder_alone():
    for name in ("gsm8k-sft", "gsm8k-rl"):
        request = preset(name).request
        fields = workload_info(request.workload).options.model_fields
        assert {field for field, info in fields.items() if info.is_required()} == {"model", "data"}


def test_the_form_that_gsm8k_rewards_ends_in_its_final_answer():
    assert re.fullmatch(GSM8K_FORM, "6 * 7 = 42\n#### 42", re.DOTALL)
    assert not re.fullmatch(GSM8K_FORM, "#### 42 apples", re.DOTALL)
