"""A run's adapter as a PEFT folder: ``adapter_config.json`` and ``adapter_model.safetensors``.

Torch-free, so that the API can answer with it. Tensors keep their dtype; factors are re-keyed, never
recomputed, so that ``peft.PeftModel.from_pretrained`` gives the logits that the run was measured with.

A method says itself what of it PEFT holds (``Method.peft_factors``, ``peft_vectors``, ``peft_config``). Most
are LoRA or rsLoRA, DoRA brings its magnitudes, PiSSA becomes LoRA of twice the rank over the original base.

A layer that the base model does not have (a new output layer) is written merged, in ``modules_to_save``.

α is written as what gives the scale at the end of training, whatever its schedule did on the way.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors.numpy import load_file, save

from lora_alpha.errors import Conflict
from lora_alpha.methods import METHODS, Method
from lora_alpha.methods.base import Array, Parts
from lora_alpha.peft_format.merge import merge_warnings
from lora_alpha.scaling import ScaleRule, shortest_alpha

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
README_FILE = "README.md"
# A decoder classifies by its last real token.
PADDING_ADVICE = (
    "- For texts of different lengths set `base.config.pad_token_id` to the tokenizer's padding token, or to "
    "its end of text where it has none."
)
KEY_PREFIX = "base_model.model."

Layers = Mapping[str, Parts]


@dataclass(frozen=True)
class PeftAdapter:
    """What a PEFT adapter folder holds, and what its user should know.

    Attributes:
        config: ``adapter_config.json``.
        tensors: ``adapter_model.safetensors`` by PEFT's keys.
        warnings: Where merging it into bfloat16 weights loses precision.
        auto_class: transformers' class that loads the base; None for a model from elsewhere.
    """

    config: dict[str, Any]
    tensors: dict[str, Array]
    warnings: tuple[str, ...] = ()
    auto_class: str | None = None


def read_run_adapter(path: Path) -> dict[str, dict[str, Array]]:
    """Layer → tensors from a file with keys ``layer/tensor``, as workers write it."""
    layers: dict[str, dict[str, Array]] = {}
    for key, tensor in load_file(path).items():
        layer, _, name = key.rpartition("/")
        layers.setdefault(layer, {})[name] = tensor
    return layers


def to_peft(
    layers: Layers,
    *,
    method: str,
    base_model: str | None = None,
    task_type: str | None = None,
    auto_class: str | None = None,
) -> PeftAdapter:
    """The adapter in PEFT's format.

    Args:
        layers: Module path in the base model → ``A`` (r, in), ``B`` (out, r), ``scale`` () and what else the
            method's layer exports; ``base_norm`` = ‖W0‖_F where it is known; ``new_weight`` and ``new_bias``
            of a layer that the base model's files lack.
        method: The run's method.
        base_model: Name or folder of the base, where it has one.
        task_type: PEFT's task type, such as ``CAUSAL_LM``; None for a plain model.
        auto_class: transformers' class that loads the base, such as ``AutoModelForCausalLM``.

    Raises:
        Conflict: If the method has no factors, or nothing but a new layer was adapted.
    """
    info = METHODS[method]
    if not info.uses_rank:
        raise Conflict(
            f"this run trained its weights in full ({method}): it has no low-rank adapter to export; "
            "PEFT adapters exist for methods with a rank"
        )
    tensors: dict[str, Array] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for path, parts in layers.items():
        if "new_weight" in parts:
            tensors |= _merged(info, path, parts)
            continue
        lora_A, lora_B = info.peft_factors(parts)
        written = {"lora_A.weight": lora_A, "lora_B.weight": lora_B}
        written |= {ending: parts[name] for name, ending in info.peft_vectors.items()}
        for ending, tensor in written.items():
            tensors[f"{KEY_PREFIX}{path}.{ending}"] = np.ascontiguousarray(tensor)
        ranks[path] = len(lora_A)
        alphas[path] = _readable_alpha(parts["scale"], len(lora_A), info.rule)
    if not ranks:
        raise Conflict("only the new output layer was adapted: there is nothing beside it to export")
    rank, alpha = _most_common(ranks), _most_common(alphas)
    config = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "target_modules": _targets(list(ranks)),
        "rank_pattern": _pattern(ranks, rank),
        "alpha_pattern": _pattern(alphas, alpha),
        "modules_to_save": sorted(set(layers) - set(ranks)) or None,
        **info.peft_config(),
    }
    return PeftAdapter(config, tensors, tuple(merge_warnings(layers, method=info)), auto_class)


def write_folder(adapter: PeftAdapter, folder: Path) -> None:
    """Write the adapter's files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(adapter).items():
        (folder / name).write_bytes(content)


def write_zip(adapter: PeftAdapter, file: IO[bytes]) -> None:
    """Write the adapter's files as a zip archive; weights do not compress, so nothing is compressed."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in _files(adapter).items():
            archive.writestr(name, content)


def _files(adapter: PeftAdapter) -> dict[str, bytes]:
    return {
        CONFIG_FILE: json.dumps(adapter.config, indent=2, sort_keys=True).encode(),
        WEIGHTS_FILE: save(adapter.tensors, metadata={"format": "pt"}),
        README_FILE: _readme(adapter).encode(),
    }


def _merged(method: Method, path: str, parts: Parts) -> dict[str, Array]:
    """Weight and bias of a layer that has no base to stay apart from."""
    weight = method.merged(parts["new_weight"], parts)
    found = {f"{KEY_PREFIX}{path}.weight": weight.astype(parts["A"].dtype)}
    if "new_bias" in parts:
        found[f"{KEY_PREFIX}{path}.bias"] = np.ascontiguousarray(parts["new_bias"])
    return found


def _readable_alpha(scale: Array, rank: int, rule: ScaleRule) -> float:
    """The α with the fewest digits that gives this very scale in the scale's own precision.

    The scale is stored in float32: its exact α at rank 3 would be 15.999999523 where 16 was meant.
    """
    alpha = shortest_alpha(float(scale), rank, rule=rule, stored=lambda s: float(np.asarray(s, scale.dtype)))
    return int(alpha) if alpha.is_integer() else alpha


def _most_common(values: Mapping[str, Any]) -> Any:
    return Counter(values.values()).most_common(1)[0][0]


def _pattern(values: Mapping[str, Any], default: Any) -> dict[str, Any]:
    # ``^`` keeps PEFT from taking a path for the end of a longer one.
    return {f"^{_escape(path)}": value for path, value in values.items() if value != default}


def _targets(paths: list[str]) -> list[str] | str:
    """Module paths, as a list where PEFT cannot mistake them.

    PEFT takes a list's entries for ends of paths, too: a module at the top (``fc``) would also catch a frozen
    ``block.fc``. A regular expression has to match the whole path.
    """
    if all("." in path for path in paths):
        return sorted(paths)
    return "|".join(_escape(path) for path in sorted(paths))


def _escape(path: str) -> str:
    return path.replace(".", r"\.")


def _readme(adapter: PeftAdapter) -> str:
    loader = adapter.auto_class
    base = repr(adapter.config["base_model_name_or_path"])
    whole = adapter.config["modules_to_save"] or []
    if loader == "AutoModelForSequenceClassification" and whole:
        base += f", num_labels={_num_labels(adapter)}"
    lines = [
        "# LoRA adapter",
        "",
        "```python",
        "from peft import PeftModel",
        *([f"from transformers import {loader}"] if loader else []),
        "",
        f"base = {loader}.from_pretrained({base})" if loader else "base = ...  # the model that was adapted",
        'model = PeftModel.from_pretrained(base, "this folder")',
        "```",
        "",
        f"r = {adapter.config['r']}, lora_alpha = {adapter.config['lora_alpha']}, "
        f"use_rslora = {adapter.config['use_rslora']}.",
        "",
        "The adapter is exact while it stays apart from its base. Merge it in float32.",
        *(f"- {name}: the base has no weights of it, so the adapter brings them whole." for name in whole),
        *([PADDING_ADVICE] if "score" in whole else []),
        *(f"- {warning}" for warning in adapter.warnings),
    ]
    return "\n".join(lines) + "\n"


def _num_labels(adapter: PeftAdapter) -> int:
    """Rows of the output layer, the last of those that were made for the task."""
    saved = [key for key in adapter.tensors if key.endswith(".weight") and ".lora_" not in key]
    return len(adapter.tensors[saved[-1]])
