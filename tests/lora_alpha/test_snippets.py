"""The copied text trains what was recommended: PEFT's own scale is the card's, to the last bit."""

from __future__ import annotations

import math

import pytest
import yaml

from lora_alpha.conventions import ENGINES
from lora_alpha.methods import METHODS
from lora_alpha.snippets import IMPORTED, Recipe, recipe_of
from tests.snippet_readers import SETTINGS, TRAINED, call_of, run_peft, scalings, snippet, train_spec, written
from tests.tiny_models import tiny_llama


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize(("rank", "alpha"), SETTINGS)
def test_pefts_layers_have_the_scale_of_the_card(method: str, rank: int, alpha: float) -> None:
    text = snippet("peft", method, rank=rank, alpha=alpha, targets="q_proj, down_proj")
    made = run_peft(text, tiny_llama())
    found = scalings(made["model"])
    assert found
    assert set(found.values()) == {METHODS[method].scale(rank=rank, alpha=alpha)}
    assert {name.rpartition(".")[2] for name in found} == {"q_proj", "down_proj"}
    config = made["config"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (rank, alpha, 0.05)
    assert (config.task_type, config.bias, config.use_dora) == ("CAUSAL_LM", "none", method == "dora")
    assert config.init_lora_weights == ("pissa" if method == "pissa" else True)
    assert made["learning_rate"] == 2e-5
    trains_A = any(p.requires_grad for n, p in made["model"].named_parameters() if "lora_A" in n)
    assert trains_A == METHODS[method].trains_A
    if method == "lora+":
        rates = {
            name: group["lr"]
            for group in made["optimizer"].param_groups
            for name, parameter in made["model"].named_parameters()
            if any(parameter is one for one in group["params"])
        }
        assert all(rate == (2e-5 * 16 if "lora_B" in name else 2e-5) for name, rate in rates.items())


def test_patterns_reach_the_layers_that_they_reached_in_the_sweep() -> None:
    text = snippet(
        "peft", "lora", rank=4, alpha=64, targets=r".*\.(q|k)_proj", rank_pattern={"q_proj": 8},
        alpha_pattern={r"layers\.0\.self_attn\.k_proj": 16},
    )  # fmt: skip
    found = scalings(run_peft(text, tiny_llama())["model"])
    assert {name.rpartition(".")[2] for name in found} == {"q_proj", "k_proj"}
    for name, scale in found.items():
        expected = 64 / 8 if "q_proj" in name else (16 / 4 if "layers.0." in name else 64 / 4)
        assert scale == expected


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize(("rank", "alpha"), SETTINGS)
def test_every_engine_computes_the_scale_of_the_card_or_says_why_not(
    engine: str, method: str, rank: int, alpha: float
) -> None:
    text = snippet(engine, method, rank=rank, alpha=alpha)
    if all(line.startswith("# ") for line in text.splitlines()):
        assert f"{ENGINES[engine].title} cannot train this: it has no setting for" in text
        assert (engine, method) in CANNOT
        return
    assert (engine, method) not in CANNOT
    if ENGINES[engine].language == "yaml":
        config = yaml.safe_load(text)
        rate = config[ENGINES[engine].fields["learning_rate"]]
    else:
        call = "FastLanguageModel.get_peft_model" if engine == "unsloth" else "LoraConfig"
        config = call_of(text, call)
        rate = 2e-5
    assert ENGINES[engine].scale(config) == METHODS[method].scale(rank=rank, alpha=alpha)
    assert rate == 2e-5
    assert repr(2e-5) in text.replace("2.0e", "2e")


CANNOT = {
    *((engine, "lora-fa") for engine in ("trl", "axolotl", "llama-factory", "unsloth")),
    ("trl", "lora+"),
}


def test_a_workload_without_layers_of_yours_names_none() -> None:
    for train, said in ((train_spec("mlp"), "the workload mlp, none of your layers"), (None, IMPORTED)):
        for engine in ENGINES:
            text = written(engine, "lora", rank=8, alpha=32, lr=1e-3, recipe=recipe_of(train))
            assert said in text.splitlines()[0]
            assert "target" not in text.replace("targets", "")
            assert "base" not in text


def test_what_no_field_says_is_a_comment() -> None:
    classifier = recipe_of(train_spec("hf-classify"))
    assert classifier.task_type is None
    assert "would train it whole" in classifier.notes[0]
    axolotl = written("axolotl", "lora", rank=8, alpha=32, lr=1e-3, recipe=classifier)
    assert axolotl == "# axolotl cannot train this: it trains CAUSAL_LM, and the runs another task"
    started = recipe_of({**train_spec(), "init_adapter": "adapters/one\nx"})
    text = written("peft", "lora", rank=8, alpha=32, lr=1e-3, recipe=started)
    assert text.startswith("# the runs started from the adapter adapters/one x\n")
    assert "GRPO" in recipe_of(train_spec("hf-rl")).notes[0]
    assert recipe_of(train_spec("hf-clip")).task_type is None


def test_fractions_of_alpha_are_not_rounded_for_engines_of_whole_numbers() -> None:
    recipe = Recipe(targets="all-linear", task_type="CAUSAL_LM", base_model="m")
    assert "lora_alpha=0.3," in written("peft", "lora", rank=3, alpha=0.3, lr=1e-3, recipe=recipe)
    for engine in ("axolotl", "llama-factory"):
        text = written(engine, "lora", rank=3, alpha=0.3, lr=1e-3, recipe=recipe)
        assert text.endswith("α = 0.3 is not a whole number, as its lora_alpha has to be")


@pytest.mark.parametrize("rule", ["lora", "rslora"])
def test_the_written_alpha_gives_back_the_very_scale(rule: str) -> None:
    method = METHODS[rule]
    for rank in (1, 3, 7, 49, 100, 4096):
        for alpha in (0.1, 3.9, 27.0, 362.0, 1e6 / 3):
            scale = method.scale(rank=rank, alpha=alpha)
            assert scale is not None
            written_alpha = method.peft_alpha(scale, rank)
            assert written_alpha / (rank if rule == "lora" else math.sqrt(rank)) == scale
