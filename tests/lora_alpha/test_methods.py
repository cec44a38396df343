from __future__ import annotations

import pytest

from lora_alpha.methods import METHODS, method_scale


def test_names_are_keys() -> None:
    assert all(name == info.name for name, info in METHODS.items())


@pytest.mark.parametrize(
    "name", ["lora", "rslora", "lora-alpha", "lora+", "lora-fa", "pissa", "dora", "full"]
)
def test_every_promised_method_exists(name: str) -> None:
    assert METHODS[name].summary.endswith(".")


def test_rslora_alone_divides_by_the_root() -> None:
    assert method_scale("rslora", rank=16, alpha=64) == 16.0
    assert {method_scale(name, rank=16, alpha=64) for name in METHODS if name not in {"rslora", "full"}} == {
        4.0
    }


def test_full_fine_tuning_has_no_scale() -> None:
    assert method_scale("full", rank=None, alpha=None) is None
    assert method_scale("full", rank=4, alpha=8) is None


def test_what_sets_the_variants_apart() -> None:
    assert METHODS["lora+"].default_lr_ratio == 16.0
    assert not METHODS["lora-fa"].trains_A
    assert METHODS["lora-alpha"].alpha_from_rule
    assert not METHODS["full"].uses_rank
