"""A recommendation as the configuration of a trainer: text that its user copies.

The scale that the trainer computes from the text is the recommendation's, to the last bit. Where an engine
cannot say what the sweep trained, its text is a comment that says why, never another training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lora_alpha.catalog import WORKLOADS
from lora_alpha.catalog.huggingface_options import ModelOptions, names_in
from lora_alpha.conventions import ALL_LINEAR, ENGINES, Engine, objections, spell
from lora_alpha.methods import Method

IMPORTED = "the runs came from elsewhere and do not say which layers they adapted: name yours"
NEW_HEAD = (
    "the runs adapted their output layer like the others (name it among the targets); PEFT's task type "
    "SEQ_CLS would train it whole, at a learning rate that no α reaches"
)
BY_REWARD = "the runs learnt from rewards by a group-relative policy gradient: take your trainer's GRPO"


@dataclass(frozen=True)
class Recipe:
    """What a sweep trained beside method, rank, α and η, as far as a trainer's configuration says it.

    Attributes:
        targets: Names of the adapted layers, a regular expression on their full names, or ``all-linear``;
            None where no layer of the user's model is known.
        rank_pattern: Layers with a rank of their own.
        alpha_pattern: Layers with an α of their own, which no recommendation moves.
        dropout: On the adapters' inputs.
        task_type: PEFT's name of the task, where it has one.
        base_model: Folder or name of the base.
        notes: What a user must know that no field says; each becomes a comment.
    """

    targets: str | tuple[str, ...] | None = None
    rank_pattern: Mapping[str, int] | None = None
    alpha_pattern: Mapping[str, float] | None = None
    dropout: float = 0.0
    task_type: str | None = None
    base_model: str | None = None
    notes: tuple[str, ...] = ()


def recipe_of(train: Mapping[str, Any] | None) -> Recipe:
    """The recipe of a sweep with this ``train`` in its specification; of imported runs where it has none."""
    if not train:
        return Recipe(notes=(IMPORTED,))
    info = WORKLOADS.get(train["workload"])
    start, dropout = train.get("init_adapter"), train.get("lora_dropout", 0.0)
    notes = [f"the runs started from the adapter {start}"] if start else []
    if info is None or not issubclass(info.options, ModelOptions):
        missing = f"the sweep trained the workload {train['workload']}, none of your layers: name yours"
        return Recipe(dropout=dropout, notes=(missing, *notes))
    options: Mapping[str, Any] = train["workload_options"]
    targets = options["targets"].strip()
    named = tuple(names_in(targets))
    if info.auto_class == "AutoModelForSequenceClassification":
        notes.append(NEW_HEAD)
    if info.family == "reasoning-rl":
        notes.append(BY_REWARD)
    return Recipe(
        targets=named if named and targets != ALL_LINEAR else targets,
        rank_pattern=options["rank_pattern"],
        alpha_pattern=options["alpha_pattern"],
        dropout=dropout,
        task_type=info.task_type,
        base_model=options["model"],
        notes=tuple(notes),
    )


def write_snippets(
    method: Method, *, rank: int, scale: float, lr: float, lr_ratio: float, recipe: Recipe
) -> dict[str, str]:
    """The configuration for every engine: engine's name → text.

    Args:
        method: Fine-tuning method.
        rank: Rank r.
        scale: Effective scale s that the trainer is to have.
        lr: Learning rate, of A where A and B differ.
        lr_ratio: lr_B / lr_A.
        recipe: What else the sweep trained.
    """
    settings: dict[str, Any] = {
        "base_model": recipe.base_model,
        "r": rank,
        "lora_alpha": method.peft_alpha(scale, rank),
        **method.peft_config(),
        **method.peft_start,
        "lora_dropout": recipe.dropout,
        "target_modules": recipe.targets,
        "rank_pattern": recipe.rank_pattern,
        "alpha_pattern": recipe.alpha_pattern,
        "bias": "none",
        "task_type": recipe.task_type,
        "learning_rate": lr,
        "loraplus_lr_ratio": None if lr_ratio == 1 else lr_ratio,
        "freeze_A": None if method.trains_A else True,
    }
    given = {name: value for name, value in settings.items() if value not in (None, {})}
    return {name: _text(engine, given, recipe.notes) for name, engine in ENGINES.items()}


def _text(engine: Engine, settings: Mapping[str, Any], notes: tuple[str, ...]) -> str:
    reasons = objections(engine, settings)
    if reasons:
        return "\n".join(_comment(f"{engine.title} cannot train this: {reason}") for reason in reasons)
    written = _yaml(engine, settings) if engine.language == "yaml" else PYTHON[engine.name](engine, settings)
    return "\n".join([*map(_comment, notes), written])


def _comment(text: str) -> str:
    return f"# {' '.join(text.split())}"


def _yaml(engine: Engine, settings: Mapping[str, Any]) -> str:
    written = spell(engine, {"adapter_type": "lora", **settings})
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")


def _peft(engine: Engine, settings: Mapping[str, Any]) -> str:
    base, ratio = settings.get("base_model"), settings.get("loraplus_lr_ratio")
    lines = [
        "from peft import LoraConfig, get_peft_model",
        "",
        f"config = {_call('LoraConfig', _config(engine, settings))}",
        "model = get_peft_model(model, config)" + (f"  # model: {base!r}" if base else ""),
        f"learning_rate = {settings['learning_rate']!r}",
    ]
    if settings.get("freeze_A"):
        lines += [
            "for name, parameter in model.named_parameters():",
            '    if "lora_A" in name:',
            "        parameter.requires_grad_(False)",
        ]
    if ratio is not None:
        lines += [
            "",
            "import torch",
            "from peft.optimizers import create_loraplus_optimizer",
            "",
            "optimizer = create_loraplus_optimizer(",
            f"    model, torch.optim.AdamW, lr=learning_rate, loraplus_lr_ratio={ratio!r}",
            ")",
        ]
    return "\n".join(lines)


def _trl(engine: Engine, settings: Mapping[str, Any]) -> str:
    base = settings.get("base_model")
    model = f"{base!r}" if base else "model"
    return "\n".join(
        [
            "from peft import LoraConfig",
            "from trl import SFTConfig",
            "",
            f"peft_config = {_call('LoraConfig', _config(engine, settings))}",
            f"args = SFTConfig(learning_rate={settings['learning_rate']!r})",
            f"# trl.SFTTrainer(model={model}, args=args, peft_config=peft_config, …)",
        ]
    )


def _unsloth(engine: Engine, settings: Mapping[str, Any]) -> str:
    base, ratio = settings.get("base_model"), settings.get("loraplus_lr_ratio")
    rates = {"learning_rate": settings["learning_rate"]}
    rates |= {} if ratio is None else {"loraplus_lr_ratio": ratio}
    return "\n".join(
        [
            "from unsloth import FastLanguageModel, UnslothTrainingArguments",
            "",
            *([f"# model, tokenizer = FastLanguageModel.from_pretrained({base!r}, …)"] if base else []),
            f"model = {_call('FastLanguageModel.get_peft_model', _config(engine, settings), 'model')}",
            f"args = {_call('UnslothTrainingArguments', rates)}",
        ]
    )


PYTHON = {"peft": _peft, "trl": _trl, "unsloth": _unsloth}
OUTSIDE = ("base_model", "learning_rate", "loraplus_lr_ratio", "freeze_A")


def _config(engine: Engine, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the call that makes the adapters."""
    return spell(engine, {name: value for name, value in settings.items() if name not in OUTSIDE})


def _call(function: str, arguments: Mapping[str, Any], first: str = "") -> str:
    lines = [f"    {first},"] if first else []
    lines += [f"    {name}={value!r}," for name, value in arguments.items()]
    return "\n".join([f"{function}(", *lines, ")"])
