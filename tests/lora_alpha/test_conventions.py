from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from torch import nn

from lora_alpha.conventions import ENGINES, objections, spell


@pytest.mark.parametrize("config", [{}, {"r": 4}, {"r": 4, "lora_alpha": 10}, {"r": 9, "use_rslora": True}])
def test_pefts_own_scale_is_what_the_table_says(config: Mapping[str, Any]) -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(target_modules=["0"], **config))
    (scale,) = (m.scaling["default"] for m in model.modules() if hasattr(m, "scaling"))
    assert ENGINES["peft"].scale(config) == scale


def test_peft_knows_every_name_of_the_table() -> None:
    functions = LoraConfig, create_loraplus_optimizer
    known = {name for function in functions for name in inspect.signature(function).parameters}
    assert set(ENGINES["peft"].fields.values()) - known == {"requires_grad", "base_model"}


def test_an_engine_without_a_default_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="axolotl needs lora_r and lora_alpha"):
        ENGINES["axolotl"].scale({"lora_r": 8})
    assert ENGINES["axolotl"].scale({"lora_r": 16, "lora_alpha": 8, "peft_use_rslora": True}) == 2.0


@pytest.mark.parametrize(
    ("engine", "settings", "said"),
    [
        ("axolotl", {"lora_alpha": 12.5}, "α = 12.5 is not a whole number"),
        ("axolotl", {"alpha_pattern": {"q": 0.5}}, "α of q = 0.5 is not a whole number"),
        ("llama-factory", {"target_modules": ".*q_proj"}, "takes names, not a regular expression"),
        ("llama-factory", {"rank_pattern": {"q": 4}}, "ranks of their own"),
        ("trl", {"loraplus_lr_ratio": 16.0}, "a learning rate of its own for B"),
        ("unsloth", {"freeze_A": True}, "a frozen A"),
        ("trl", {"base_model": "b", "task_type": "SEQ_CLS"}, "trains CAUSAL_LM, and the runs SEQ_CLS"),
        ("trl", {"base_model": "b"}, "and the runs another task"),
        ("llama-factory", {"init_lora_weights": "olora"}, "no setting for init_lora_weights = olora"),
    ],
)
def test_what_an_engine_cannot_say_is_refused(engine: str, settings: Mapping[str, Any], said: str) -> None:
    (reason,) = objections(ENGINES[engine], settings)
    assert said in reason


def test_what_is_said_in_other_words() -> None:
    settings = {"target_modules": "all-linear", "init_lora_weights": "pissa", "bias": "none"}
    assert objections(ENGINES["llama-factory"], settings) == []
    assert spell(ENGINES["llama-factory"], settings) == {
        "lora_target": "all",
        "pissa_init": True,
        "pissa_iter": -1,
    }
    assert spell(ENGINES["llama-factory"], {"target_modules": ("a", "b")}) == {"lora_target": "a,b"}
    assert spell(ENGINES["axolotl"], {"alpha_pattern": {"q": 32.0}}) == {"lora_alpha_pattern": {"q": 32}}
