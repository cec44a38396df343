"""Reading a PEFT adapter folder as the starting point of runs. Torch-free.

Plain LoRA and DoRA are read, whatever their dtype; what changes the base model's weights or adds other
parameters (biases, saved modules, tokens) is refused: from it no run would start where the adapter was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.methods.base import adapter_kind
from lora_alpha.peft_format.export import CONFIG_FILE, KEY_PREFIX, WEIGHTS_FILE
from lora_alpha.scaling import effective_scale
from lora_alpha.spec import SweepSpec

FIELD = "init_adapter"
# Fields of a LoraConfig that stand for something else than factors beside a frozen base, and what they say.
FOREIGN = {
    "modules_to_save": "it also replaces whole modules",
    "trainable_token_indices": "it also trains embeddings of single tokens",
    "lora_bias": "its factors have biases",
    "layer_replication": "it repeats layers of the base",
    "target_parameters": "it adapts parameters that are no linear layers",
}
# Initialisations that take something out of the base, which the folder alone does not give back.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "eva")
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True)
class StartAdapter:
    """An adapter to start from.

    Attributes:
        layers: Module path → ``A, B, scale`` and ``peft_vectors`` of a method, float32 or float64.
    """

    layers: dict[str, dict[str, NDArray[Any]]]

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that occur."""
        return {name for parts in self.layers.values() for name in parts}

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur."""
        return sorted({len(parts["A"]) for parts in self.layers.values()})


def find_folder(name: str, *, roots: Sequence[Path] | None) -> Path:
    """The adapter folder that ``name`` means: an absolute path, or one below an allowed root.

    Raises:
        InvalidSpec: If there is none, or it lies outside the roots once links are followed.
    """
    given = Path(name).expanduser()
    candidates = [given] if given.is_absolute() else [root / given for root in roots or [Path.cwd()]]
    found = next((path.resolve() for path in candidates if path.is_dir()), None)
    if found is None:
        raise _problem(f"there is no folder {name!r}: give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    if roots is not None and not any(found.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(map(str, roots))
        raise _problem(
            f"{found} lies outside the allowed folders ({allowed}): move it there, or name its folder in "
            "LORA_ALPHA_ALLOWED_ROOTS and start again"
        )
    return found


def read_peft_folder(folder: Path) -> StartAdapter:
    """The adapter in ``folder``.

    Raises:
        InvalidSpec: If a file is missing or broken, or the adapter is more than factors beside its base.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder / WEIGHTS_FILE)
    layers: dict[str, dict[str, NDArray[Any]]] = {}
    for key, tensor in tensors.items():
        path, kind = _split(key)
        layers.setdefault(path, {})[kind] = tensor
    for path, parts in layers.items():
        if not {"A", "B"} <= parts.keys():
            raise _problem(f"{folder / WEIGHTS_FILE} has one factor only of layer {path}")
        parts["scale"] = np.asarray(_scale(config, path, len(parts["A"])), np.float64)
    return StartAdapter(layers)


def check_sweep(adapter: StartAdapter, spec: SweepSpec) -> None:
    """Whether every run of ``spec`` can start from the adapter; layers are checked when a model is there.

    Raises:
        InvalidSpec: With each method and rank that cannot.
    """
    methods = {*spec.methods, *(cell.method for cell in spec.cells)}
    ranks = {*(spec.ranks if spec.methods else []), *(cell.rank for cell in spec.cells if cell.rank)}
    allowed = [name for name, method in METHODS.items() if method.start_problem(adapter.tensors) is None]
    kind = adapter_kind(adapter.tensors)
    problems = [
        FieldProblem("methods", f"got {method!r}: from {kind} only {', '.join(allowed)} can start")
        for method in sorted(methods - set(allowed))
    ]
    if len(adapter.ranks) == 1 and ranks - set(adapter.ranks):
        given = ", ".join(map(str, sorted(ranks)))
        message = f"got {given}: the adapter in {FIELD} has rank {adapter.ranks[0]}, runs need the same"
        problems.append(FieldProblem("ranks", message))
    if problems:
        raise InvalidSpec(problems)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _problem(f"{folder} has no {CONFIG_FILE}: it is no PEFT adapter folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _problem(f"{path} is no JSON ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _problem(f"{path} describes peft_type {kind!r}: only LORA can be started from")
    for field, reason in FOREIGN.items():
        if config.get(field):
            raise _problem(f"the adapter in {folder} cannot be started from: {reason} ({field})")
    if config.get("bias", "none") != "none":
        raise _problem(f"the adapter in {folder} cannot be started from: it also trains biases")
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(CHANGES_BASE):
        raise _problem(
            f"the adapter in {folder} was started as {start!r}, which changes the base: convert it to plain "
            "LoRA first (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    if not isinstance(config.get("r"), int) or not isinstance(config.get("lora_alpha"), int | float):
        raise _problem(f"{path} lacks r or lora_alpha")
    return config


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    try:
        parts = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        other = " Pickled weights (adapter_model.bin) are not read: save it as safetensors."
        hint = other if path.with_suffix(".bin").exists() else ""
        raise _problem(f"{path.parent} has no {WEIGHTS_FILE}.{hint}") from None
    except SafetensorError as error:
        raise _problem(f"{path} is no safetensors file, or is cut off ({error})") from None
    return {name: _array(name, part) for name, part in parts}


def _array(name: str, part: Any) -> NDArray[Any]:
    """A tensor in float32 or float64; numpy has no bfloat16, whose bits are the upper half of float32's."""
    if part["dtype"] == "BF16":
        bits = np.frombuffer(part["data"], "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(part["shape"])
    if part["dtype"] not in DTYPES:
        known = ", ".join([*DTYPES, "BF16"])
        raise _problem(f"tensor {name} is of type {part['dtype']}: {known} are read")
    values = np.frombuffer(part["data"], DTYPES[part["dtype"]]).reshape(part["shape"])
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values.copy()


def _split(key: str) -> tuple[str, str]:
    endings = {"lora_A.weight": "A", "lora_B.weight": "B"}
    endings |= {ending: name for method in METHODS.values() for name, ending in method.peft_vectors.items()}
    for ending, name in endings.items():
        path = key.removeprefix(KEY_PREFIX).removesuffix(f".{ending}")
        if key == f"{KEY_PREFIX}{path}.{ending}":
            return path, name
    raise _problem(f"tensor {key} is no factor of a linear layer: embeddings and biases are not read")


def _scale(config: dict[str, Any], path: str, rank: int) -> float:
    """The scale as PEFT computes it; the factors' own shape is the rank."""
    alpha = next(
        (
            value
            for pattern, value in (config.get("alpha_pattern") or {}).items()
            if re.match(rf"(.*\.)?({pattern})$", path)
        ),
        config["lora_alpha"],
    )
    return effective_scale(
        float(alpha), rank, rule="alpha/sqrt(r)" if config.get("use_rslora") else "alpha/r"
    )


def _problem(message: str) -> InvalidSpec:
    return InvalidSpec([FieldProblem(FIELD, message)])
