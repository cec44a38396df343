"""How training engines spell a LoRA configuration, and what scale each of them computes from it.

One table, ``ENGINES``. PEFT's names are the common tongue: a configuration is a mapping of them, and an
engine says what it calls each. What an engine has no name for it cannot say; ``spell`` then gives reasons
instead of a configuration that trains something else.

Beside the fields of PEFT's ``LoraConfig`` there are five names of what stands elsewhere: ``learning_rate``,
``loraplus_lr_ratio`` (lr_B / lr_A), ``freeze_A`` (only B trains), ``base_model`` and ``adapter_type``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lora_alpha.scaling import ScaleRule, effective_scale

ALL_LINEAR = "all-linear"
# What a configuration may leave out without training anything else: every engine does the same by itself.
IMPLIED: Mapping[str, Any] = {"bias": "none", "init_lora_weights": True}
# What an engine knows from elsewhere: its task from the trainer, the model from its loader.
UNSAID = ("task_type", "base_model")
WORDS = {
    "rank_pattern": "ranks of their own for some layers (rank_pattern)",
    "alpha_pattern": "α of their own for some layers (alpha_pattern)",
    "loraplus_lr_ratio": "a learning rate of its own for B",
    "freeze_A": "a frozen A",
    "use_dora": "DoRA",
    "use_rslora": "the scale α/√r",
}


@dataclass(frozen=True)
class Engine:
    """One trainer's way of writing a LoRA configuration.

    Attributes:
        name: Key in answers and addresses.
        title: For people.
        language: What its users write.
        fields: PEFT's name → the name here.
        spelled: A (name, value) that is written in other words here → those words.
        joined: PEFT's names whose lists are written as one text with commas.
        whole_alpha: α is declared as a whole number.
        target_regex: ``target_modules`` may be a regular expression on full names.
        task_types: PEFT's task types that its trainer makes models for; None: whatever it is given.
        default_rank: r where none is given; None: it has to be.
        default_alpha: α where none is given; None: it has to be.
        alpha_per_rank: α where none is given, over r; None: ``default_alpha`` holds.
        source: Where this was read, with the version.
    """

    name: str
    title: str
    language: Literal["python", "yaml"]
    fields: Mapping[str, str]
    spelled: Mapping[tuple[str, Any], Mapping[str, Any]] = field(default_factory=dict)
    joined: tuple[str, ...] = ()
    whole_alpha: bool = False
    target_regex: bool = True
    task_types: tuple[str, ...] | None = None
    default_rank: int | None = None
    default_alpha: float | None = None
    alpha_per_rank: float | None = None
    source: str = ""

    def rule(self, config: Mapping[str, Any]) -> ScaleRule:
        """How the scale follows from α in its configuration: α/√r where rsLoRA is on, else α/r."""
        return "alpha/sqrt(r)" if config.get(self.fields.get("use_rslora", "")) else "alpha/r"

    def scale(self, config: Mapping[str, Any]) -> float:
        """The scale s that the engine computes from its own configuration, its defaults filled in.

        Every engine here hands its configuration to PEFT, where s = α/r, or α/√r with rsLoRA, whatever the
        initialisation, DoRA or learning rates.

        Raises:
            ValueError: If rank or α is missing and the engine has no default.

        >>> ENGINES["llama-factory"].scale({"lora_rank": 16}), ENGINES["peft"].scale({"r": 16})
        (2.0, 0.5)
        """
        rank = config.get(self.fields["r"], self.default_rank)
        alpha = config.get(self.fields["lora_alpha"])
        if alpha is None and rank is not None:
            alpha = self.default_alpha if self.alpha_per_rank is None else self.alpha_per_rank * rank
        if rank is None or alpha is None:
            raise ValueError(f"{self.title} needs {self.fields['r']} and {self.fields['lora_alpha']}")
        return effective_scale(float(alpha), int(rank), rule=self.rule(config))


LORA_CONFIG = {
    name: name
    for name in (
        *("r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern", "alpha_pattern"),
        *("modules_to_save", "bias", "task_type", "use_rslora", "use_dora", "init_lora_weights"),
    )
}
PEFT = Engine(
    "peft",
    "PEFT",
    "python",
    fields={
        **LORA_CONFIG,
        "learning_rate": "lr",
        "loraplus_lr_ratio": "loraplus_lr_ratio",
        "freeze_A": "requires_grad",
        "base_model": "base_model",
    },
    default_rank=8,
    default_alpha=8,
    source="peft.LoraConfig, peft.optimizers.create_loraplus_optimizer, LoraLayer.scaling (0.21)",
)
TRL = Engine(
    "trl",
    "TRL",
    "python",
    fields={**LORA_CONFIG, "learning_rate": "learning_rate", "base_model": "model"},
    task_types=("CAUSAL_LM",),
    default_rank=8,
    default_alpha=8,
    source="trl.SFTConfig, peft_config of trl.SFTTrainer (1.16); PEFT computes the scale",
)
AXOLOTL = Engine(
    "axolotl",
    "axolotl",
    "yaml",
    fields={
        "base_model": "base_model",
        "adapter_type": "adapter",
        "r": "lora_r",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "target_modules": "lora_target_modules",
        "rank_pattern": "lora_rank_pattern",
        "alpha_pattern": "lora_alpha_pattern",
        "modules_to_save": "lora_modules_to_save",
        "use_rslora": "peft_use_rslora",
        "use_dora": "peft_use_dora",
        "init_lora_weights": "peft_init_lora_weights",
        "learning_rate": "learning_rate",
        "loraplus_lr_ratio": "loraplus_lr_ratio",
    },
    spelled={("target_modules", ALL_LINEAR): {"lora_target_linear": True}},
    whole_alpha=True,
    task_types=("CAUSAL_LM",),
    source="axolotl.utils.schemas.peft.LoraConfig, axolotl.loaders.adapter (0.19); PEFT computes the scale",
)
LLAMA_FACTORY = Engine(
    "llama-factory",
    "LLaMA-Factory",
    "yaml",
    fields={
        "base_model": "model_name_or_path",
        "adapter_type": "finetuning_type",
        "r": "lora_rank",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "target_modules": "lora_target",
        "modules_to_save": "additional_target",
        "use_rslora": "use_rslora",
        "use_dora": "use_dora",
        "learning_rate": "learning_rate",
        "loraplus_lr_ratio": "loraplus_lr_ratio",
    },
    spelled={
        ("target_modules", ALL_LINEAR): {"lora_target": "all"},
        ("init_lora_weights", "pissa"): {"pissa_init": True, "pissa_iter": -1},
    },
    joined=("target_modules", "modules_to_save"),
    whole_alpha=True,
    target_regex=False,
    task_types=("CAUSAL_LM",),
    default_rank=8,
    alpha_per_rank=2,
    source="llamafactory.hparams.FinetuningArguments, llamafactory.model.adapter (0.9.5); PEFT computes the "
    "scale",
)
UNSLOTH = Engine(
    "unsloth",
    "unsloth",
    "python",
    fields={
        **{name: name for name in LORA_CONFIG if name != "task_type"},
        "learning_rate": "learning_rate",
        "loraplus_lr_ratio": "loraplus_lr_ratio",
        "base_model": "model_name",
    },
    task_types=("CAUSAL_LM",),
    default_rank=16,
    default_alpha=16,
    source="unsloth FastLanguageModel.get_peft_model, UnslothTrainingArguments (2026.10): what it does not "
    "name goes on to peft.LoraConfig, which computes the scale",
)
ENGINES: Mapping[str, Engine] = {
    engine.name: engine for engine in (PEFT, TRL, AXOLOTL, LLAMA_FACTORY, UNSLOTH)
}


def objections(engine: Engine, settings: Mapping[str, Any]) -> list[str]:
    """Why ``settings`` (in PEFT's names) cannot be written for ``engine``; empty where they can.

    >>> objections(ENGINES["llama-factory"], {"r": 8, "lora_alpha": 12.5})
    ['α = 12.5 is not a whole number, as its lora_alpha has to be']
    """
    found = []
    for name, value in settings.items():
        said = name in engine.fields or (isinstance(value, str) and (name, value) in engine.spelled)
        if not said and name not in UNSAID and IMPLIED.get(name) != value:
            found.append(f"it has no setting for {WORDS.get(name, f'{name} = {value}')}")
    found += [
        f"{of} = {value:g} is not a whole number, as its {engine.fields[name]} has to be"
        for name, of, value in _alphas(settings)
        if engine.whole_alpha and name in engine.fields and not float(value).is_integer()
    ]
    if not engine.target_regex and is_regex(settings.get("target_modules")):
        found.append(f"its {engine.fields['target_modules']} takes names, not a regular expression")
    task = settings.get("task_type")
    if engine.task_types and "base_model" in settings and task not in engine.task_types:
        found.append(f"it trains {', '.join(engine.task_types)}, and the runs {task or 'another task'}")
    return found


def spell(engine: Engine, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` (in PEFT's names) under the engine's own names; there must be no objections.

    >>> spell(ENGINES["axolotl"], {"r": 8, "lora_alpha": 32.0, "target_modules": "all-linear"})
    {'lora_r': 8, 'lora_alpha': 32, 'lora_target_linear': True}
    """
    written: dict[str, Any] = {}
    for name, value in settings.items():
        other = engine.spelled.get((name, value)) if isinstance(value, str) else None
        if other is not None:
            written |= other
        elif name in engine.fields:
            joined = name in engine.joined and not isinstance(value, str)
            written[engine.fields[name]] = ",".join(value) if joined else _plain(value)
    return written


def is_regex(targets: Any) -> bool:
    """Whether ``target_modules`` is a regular expression: a text, as in PEFT, that is not ``all-linear``."""
    return isinstance(targets, str) and targets != ALL_LINEAR


def _alphas(settings: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Every α with the field that it stands in and its name for people."""
    found = [("lora_alpha", "α", settings["lora_alpha"])] if "lora_alpha" in settings else []
    return found + [
        ("alpha_pattern", f"α of {pattern}", alpha)
        for pattern, alpha in settings.get("alpha_pattern", {}).items()
    ]


def _plain(value: Any) -> Any:
    """A whole float as the whole number that people write; inside lists and mappings too."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return list(value) if isinstance(value, tuple) else value
