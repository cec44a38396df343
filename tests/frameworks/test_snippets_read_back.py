"""Each snippet read back by its framework: ``make test-frameworks`` installs them beside the tested set.

| framework | read by |
|---|---|
| PEFT | a real model: ``tests/lora_alpha/test_snippets.py``, in ``make test`` |
| TRL | ``SFTConfig`` and ``LoraConfig`` themselves |
| axolotl | its whole configuration's schema, ``AxolotlInputConfig`` |
| LLaMA-Factory | ``HfArgumentParser`` over all of its argument classes, as its command line does |
| unsloth | the signatures in its source: it does not import without a GPU |
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_alpha.conventions import ENGINES
from lora_alpha.methods import METHODS
from tests.snippet_readers import SETTINGS, TRAINED, call_of, snippet

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.parametrize(("rank", "alpha"), SETTINGS),
]
COMMON = {"lora_dropout": 0.05, "learning_rate": 2e-5}


def scale_of(method: str, rank: int, alpha: float) -> float | None:
    return METHODS[method].scale(rank=rank, alpha=alpha)


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here: make test-frameworks")


def methods_of(engine: str) -> list[str]:
    """Those for which the engine has a snippet."""
    texts = {method: snippet(engine, method, rank=8, alpha=32) for method in TRAINED}
    return [method for method, text in texts.items() if "cannot train this" not in text]


@pytest.mark.parametrize("method", methods_of("trl"))
def test_trl(method: str, rank: int, alpha: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trl")
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    text = snippet("trl", method, rank=rank, alpha=alpha)
    # Its default of bfloat16 is refused without a GPU.
    text = text.replace("= SFTConfig(", "= SFTConfig(bf16=False, use_cpu=True, ")
    exec(compile(text, "snippet", "exec"), made)
    assert made["args"].learning_rate == 2e-5
    config = made["peft_config"]
    assert ENGINES["trl"].scale(vars(config)) == scale_of(method, rank, alpha)
    assert (config.lora_dropout, config.target_modules, config.task_type) == (0.05, "all-linear", "CAUSAL_LM")


@pytest.mark.parametrize("method", methods_of("axolotl"))
def test_axolotl(method: str, rank: int, alpha: float) -> None:
    needs("axolotl")
    from axolotl.utils.schemas.config import AxolotlInputConfig

    text = snippet("axolotl", method, rank=rank, alpha=alpha, rank_pattern={"q_proj": 4})
    rest = {
        "datasets": [{"path": "x", "type": "alpaca"}],
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
    }
    read = AxolotlInputConfig(**yaml.safe_load(text), **rest)
    config = read.model_dump()
    assert ENGINES["axolotl"].scale(config) == scale_of(method, rank, alpha)
    assert (config["adapter"], config["lora_target_linear"]) == ("lora", True)
    assert {name: config[name] for name in COMMON} == COMMON
    assert config["lora_rank_pattern"] == {"q_proj": 4}
    assert not {*yaml.safe_load(text)} - {*AxolotlInputConfig.model_fields}
    assert bool(config["peft_use_dora"]) == (method == "dora")
    assert (config["peft_init_lora_weights"] == "pissa") == (method == "pissa")
    assert config["loraplus_lr_ratio"] == (16 if method == "lora+" else None)


@pytest.mark.parametrize("method", methods_of("llama-factory"))
def test_llama_factory(
    method: str, rank: int, alpha: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("llamafactory")
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    from llamafactory.hparams.parser import _parse_train_args

    given = yaml.safe_load(snippet("llama-factory", method, rank=rank, alpha=alpha, targets="q_proj, v_proj"))
    rest = {"output_dir": os.fspath(tmp_path), "dataset": "x", "use_cpu": True}
    read = _parse_train_args({**given, **rest})
    model, training, lora = read[0], read[2], read[3]
    assert ENGINES["llama-factory"].scale(vars(lora)) == scale_of(method, rank, alpha)
    assert (model.model_name_or_path, training.learning_rate) == ("models/llama", 2e-5)
    assert (lora.finetuning_type, lora.lora_target, lora.lora_dropout) == ("lora", ["q_proj", "v_proj"], 0.05)
    assert (lora.use_dora, lora.pissa_init) == (method == "dora", method == "pissa")
    assert lora.loraplus_lr_ratio == (16 if method == "lora+" else None)


@pytest.mark.parametrize("method", methods_of("unsloth"))
def test_unsloth(method: str, rank: int, alpha: float) -> None:
    needs("unsloth")
    from peft import LoraConfig

    text = snippet("unsloth", method, rank=rank, alpha=alpha, rank_pattern={"q_proj": 4})
    named = parameters("models/llama.py", "get_peft_model")
    given = call_of(text, "FastLanguageModel.get_peft_model")
    # What it does not name itself it hands on to PEFT.
    config = LoraConfig(**given)
    assert {"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "init_lora_weights"} <= named
    assert ENGINES["unsloth"].scale(vars(config)) == scale_of(method, rank, alpha)
    assert (config.lora_dropout, config.rank_pattern) == (0.05, {"q_proj": 4})
    rates = call_of(text, "UnslothTrainingArguments")
    assert rates["learning_rate"] == 2e-5
    assert {*rates} - {"learning_rate"} <= parameters("trainer.py", "__init__", of="UnslothTrainingArguments")


def parameters(file: str, function: str, *, of: str = "FastLlamaModel") -> set[str]:
    """Parameters of a method in unsloth's source."""
    spec = importlib.util.find_spec("unsloth")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / file).read_text())
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == of]
    (found,) = (
        node
        for one in classes
        for node in one.body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    return {word.arg for word in (*found.args.args, *found.args.kwonlyargs)}


def test_defaults_are_those_of_the_frameworks(rank: int, alpha: float) -> None:
    needs("llamafactory")
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    from llamafactory.hparams.finetuning_args import FinetuningArguments
    from peft import LoraConfig

    engine = ENGINES["llama-factory"]
    read: Mapping[str, Any] = vars(FinetuningArguments(lora_rank=rank))
    assert engine.scale({"lora_rank": rank}) == engine.scale(read)
    assert ENGINES["peft"].scale({}) == ENGINES["peft"].scale(vars(LoraConfig()))
