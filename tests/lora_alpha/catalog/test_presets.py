import pytest

from lora_alpha.catalog.presets import PRESETS, preset
from lora_alpha.catalog.resolve import resolve
from lora_alpha.errors import InvalidSpec
from lora_alpha.spec import expand


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_a_valid_sweep(name):
    assert PRESETS[name].name == name
    runs = expand(resolve(preset(name).request))
    assert len({run.name for run in runs}) == len(runs)
    assert len({run.configuration.seed for run in runs}) in (1, 3)


def test_sizes():
    sizes = {name: len(expand(resolve(item.request))) for name, item in PRESETS.items()}
    assert sizes == {"alpha-vs-lr": 39, "identity": 24, "spectral-suppression": 18}


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InvalidSpec, match="alpha-vs-lr, identity"):
        preset("nope")
