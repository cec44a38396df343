"""Read a snippet back as its trainer would, as far as that imports without its GPU."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import nn

from lora_alpha.catalog import WORKLOADS
from lora_alpha.methods import METHODS
from lora_alpha.snippets import Recipe, recipe_of, write_snippets

TRAINED = [name for name, method in METHODS.items() if method.uses_rank]
# rank, α: whole scales, thirds, roots, and α that every trainer can write
SETTINGS = [(8, 512.0), (3, 27.0), (48, 1000.0), (7, 362.0)]


def train_spec(workload: str = "hf-sft", **options: Any) -> dict[str, Any]:
    """``train`` of a stored sweep."""
    needed = {"model": "models/llama", "data": "data.jsonl"} if workload.startswith("hf-") else {}
    checked = WORKLOADS[workload].options.model_validate({**needed, **options})
    return {
        "workload": workload,
        "workload_options": checked.model_dump(mode="json"),
        "lora_dropout": 0.05,
        "init_adapter": None,
    }


def snippet(engine: str, method: str, *, rank: int, alpha: float, lr: float = 2e-5, **options: Any) -> str:
    """The text that a recommendation of ``alpha`` gives for ``engine``, on a language model."""
    return written(engine, method, rank=rank, alpha=alpha, lr=lr, recipe=recipe_of(train_spec(**options)))


def written(engine: str, method: str, *, rank: int, alpha: float, lr: float, recipe: Recipe) -> str:
    info = METHODS[method]
    scale = info.scale(rank=rank, alpha=alpha)
    assert scale is not None
    found = write_snippets(info, rank=rank, scale=scale, lr=lr, lr_ratio=info.default_lr_ratio, recipe=recipe)
    return found[engine]


def run_peft(text: str, model: nn.Module) -> dict[str, Any]:
    """What PEFT's snippet makes of ``model``: its variables."""
    variables: dict[str, Any] = {"model": model}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's own, to transformers
        exec(compile(text, "snippet", "exec"), variables)
    return variables


def scalings(model: nn.Module) -> dict[str, float]:
    """PEFT's own scale of each adapted layer."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {name: layer.scaling["default"] for name, layer in layers.items()}


def call_of(text: str, function: str) -> dict[str, Any]:
    """The keyword arguments of a call to ``function`` in Python text, as literals."""

    def calls() -> Iterator[Mapping[str, Any]]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == function:
                yield {word.arg or "": ast.literal_eval(word.value) for word in node.keywords}

    (only,) = calls()
    return dict(only)
