"""Loading a transformers model as a frozen base: from safetensors alone, without anybody's code, no dropout.

``check_model_folder`` and ``read_config`` cost milliseconds and say what is wrong before weights are read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.huggingface.problems import counted, problem

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
DROPOUT = re.compile(r".*(dropout|pdrop|drop_rate)(_prob|_p)?$")


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that cannot be a model, or whose weights are not safetensors.

    Raises:
        InvalidSpec: Saying which file is missing or which kind is not read.
    """
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        what = "an adapter without its base model" if adapter else "no model"
        raise problem(
            "model", f"{folder} has no config.json, so it is {what}: give a folder written by save_pretrained"
        )
    missing = [path.name for path in weight_files(folder) if not path.is_file()]
    if missing:
        raise problem("model", f"{folder} lacks the weights {', '.join(missing[:5])}: copy them there")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the folder's weights consist of, whether or not each exists.

    Raises:
        InvalidSpec: If there are none; says so where the weights are pickles.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            shards = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            raise problem(
                "model", f"{folder / INDEX} is no index of weights: write the model again"
            ) from None
        return [folder / Path(shard).name for shard in sorted(shards)]
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise problem(
            "model",
            f"{folder} has its weights as {pickled[0]}, which can run code when it is read; only safetensors "
            "are: load it elsewhere and write it with save_pretrained",
        )
    raise problem("model", f"{folder} has no {WEIGHTS}: give a folder written by save_pretrained")


def read_config(folder: Path) -> Any:
    """The model's configuration with every dropout set to 0.

    Raises:
        InvalidSpec: If transformers does not know the architecture, or the weights are quantised.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise problem("model", f"{folder / 'config.json'} is not understood: {_first_line(error)}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise problem("model", f"{folder} is quantised: give the model in float32, bfloat16 or float16")
    for part in (config, *_parts(config)):
        _remove_dropout(part)
    return config


def load_model(
    folder: Path,
    auto_class: Any,
    *,
    device: torch.device,
    dtype: torch.dtype,
    new_weights: str = "",
    **config_changes: Any,
) -> Any:
    """The model in ``folder`` with every parameter frozen; the same weights on each call.

    Args:
        folder: A checked model folder.
        auto_class: transformers' class that picks the architecture, ``AutoModelForCausalLM`` say.
        device: Where it goes.
        dtype: Of every weight.
        new_weights: Regular expression on names of weights that the files may lack (a new head, made from
            a fixed seed); "": none.
        **config_changes: Laid over the configuration, such as ``num_labels``.

    Raises:
        InvalidSpec: If the architecture has no such class, weights are missing, or a file is damaged.
    """
    logging.disable_progress_bar()
    config = read_config(folder)
    for name, value in config_changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, missing = _read_weights(folder, auto_class, config=config, dtype=dtype)
    unknown = [name for name in missing if not (new_weights and re.fullmatch(new_weights, name))]
    if unknown:
        raise problem(
            "model",
            f"the weights in {folder} lack {counted(len(unknown), 'tensor', 'tensors')} of "
            f"{type(model).__name__}, such as {unknown[0]}: they belong to another architecture than "
            "config.json says",
        )
    model = model.requires_grad_(False).to(device=device, dtype=dtype).eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def enable_checkpointing(model: Any) -> None:
    """Recompute activations of ``model`` in the backward pass.

    The model is then in training mode, which changes nothing else since there is no dropout.

    Raises:
        InvalidSpec: If the architecture cannot.
    """
    try:
        # The older name warns where the newer exists. Both default to the checkpoint without re-entrance.
        if hasattr(model, "activation_checkpointing_enable"):
            model.activation_checkpointing_enable()
        else:
            model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise problem("gradient_checkpointing", f"{type(model).__name__} has none: turn it off") from error
    model.train()


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer.

    Raises:
        InvalidSpec: If the folder has none, or it cannot be read.
    """
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise problem(
            "model", f"{folder} has no tokenizer ({', '.join(VOCABULARY_FILES)}): copy the model's there"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        # Every tokenizer format fails in its own way, the Rust ones with bare Exception.
        raise problem(
            "model", f"the tokenizer in {folder} is not understood: {_first_line(error)}"
        ) from error


def padding_token(tokenizer: Any) -> int | None:
    """What fills short rows: the padding token, else the end of text; None where there is neither."""
    pad = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is None else int(pad)


def context_length(config: Any) -> int | None:
    """Most tokens that the model can read at once, None where its configuration sets no limit."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def _read_weights(folder: Path, auto_class: Any, *, config: Any, dtype: torch.dtype) -> tuple[Any, list[str]]:
    try:
        model, loaded = auto_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except InvalidSpec:
        raise
    except Exception as error:
        # Unknown class, wrong shapes, a damaged file: transformers and safetensors each raise their own.
        raise problem("model", f"{folder} cannot be loaded: {_first_line(error)}") from error
    return model, sorted(loaded["missing_keys"])


def _remove_dropout(config: Any) -> None:
    for name, value in vars(config).items():
        if isinstance(value, float) and DROPOUT.fullmatch(name):
            setattr(config, name, 0.0)


def _parts(config: Any) -> list[Any]:
    """Configurations inside a configuration: towers of a dual encoder, say."""
    return [
        value for value in vars(config).values() if hasattr(value, "to_dict") and hasattr(value, "model_type")
    ]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0][:300]}" if lines else type(error).__name__
