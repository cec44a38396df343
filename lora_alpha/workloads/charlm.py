"""``charlm``: SFT. A character model of English prose is fine-tuned on Python source.

Both texts ship with Python: English is ``pydoc_data.topics`` (the language reference as help() shows it),
Python the top-level modules of the standard library. They depend on the Python version, so the source
text's hash is part of the base's cache key.

Shapes: N configurations, B windows, T characters.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.catalog.builtin_text import CharLMOptions
from lora_alpha.errors import WorkloadError
from lora_alpha.models.causal_lm import CausalLM
from lora_alpha.workloads.base import Batch
from lora_alpha.workloads.counter_rng import indices
from lora_alpha.workloads.held_out import score_rows
from lora_alpha.workloads.pretrained import PretrainedWorkload
from lora_alpha.workloads.pretraining import Recipe

ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))
HELD_OUT_SHARE = 16  # the last sixteenth of each text is never trained on
NUM_TARGET, NUM_SOURCE = 32, 16  # held-out windows that an evaluation reads
MIN_PYTHON_CHARS = 100_000

Text = NDArray[np.uint8]


class CharLMWorkload(PretrainedWorkload):
    """Next-character prediction on a text that the base has not seen."""

    name = "charlm"

    def __init__(self, options: CharLMOptions) -> None:
        super().__init__()
        self.options = options
        self.recipe = Recipe(steps=options.pretrain_steps, batch_size=32, lr=2e-3)

    def make_network(self) -> nn.Module:
        """A causal transformer over 96 characters."""
        return CausalLM(
            vocabulary=len(ALPHABET),
            context=self.options.context,
            width=self.options.width,
            num_layers=self.options.num_layers,
            num_heads=self.options.num_heads,
        )

    def base_inputs(self) -> dict[str, Any]:
        """Sizes, source and the hash of its text; the target does not matter to the base."""
        sizes = self.options.model_dump(mode="json", exclude={"target", "pretrain_steps"})
        return {**sizes, "text_sha256": hashlib.sha256(self._source.tobytes()).hexdigest()}

    def source_loss(self, model: nn.Module, *, step: int) -> Tensor:
        """Next-character cross-entropy on the source text."""
        windows = self._windows(
            self._source, seeds=[self.recipe.seed], step=step, count=self.recipe.batch_size, stream=0
        )
        return _losses(model, windows).mean()

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        """Windows (N·B, T+1) of the target text."""
        windows = self._windows(self._target, seeds=seeds, step=step, count=batch_size, stream=1)
        return {"tokens": windows.to(_device(model))}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        """Mean next-character cross-entropy, nats, (N,)."""
        return _losses(model, batch["tokens"]).view(num_configs, -1).mean(1)

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        """``eval_loss`` on the target text and ``forgetting_loss`` on the source text, each (N,)."""
        losses = score_rows(
            self._held_out.to(_device(model)),
            num_configs=num_configs,
            tokens_per_row=self.options.context,
            score=lambda rows, _: _losses(model, rows).view(len(rows), -1),
        )
        target, source = losses[:, :NUM_TARGET], losses[:, NUM_TARGET:]
        return {"eval_loss": target.mean((1, 2)), "forgetting_loss": source.mean((1, 2))}

    @cached_property
    def _source(self) -> Text:
        return _read_text(self.options.source)

    @cached_property
    def _target(self) -> Text:
        target = self.options.target
        if target == "uppercase":
            return _UPPERCASE[self._source]
        if target == "reversed":
            return self._source[::-1].copy()
        return _read_text(target)

    @cached_property
    def _held_out(self) -> Tensor:
        """Evenly spaced windows of the last sixteenth of target, then source, (windows, T+1)."""
        length = self.options.context + 1
        rows = []
        for text, count in ((self._target, NUM_TARGET), (self._source, NUM_SOURCE)):
            starts = np.linspace(_num_train(text), len(text) - length, count).astype(np.int64)
            rows.append(text[starts[:, None] + np.arange(length)])
        return torch.from_numpy(np.concatenate(rows).astype(np.int64))

    def _windows(self, text: Text, *, seeds: Sequence[int], step: int, count: int, stream: int) -> Tensor:
        length = self.options.context + 1
        starts = indices(seeds, step=step, count=count, high=_num_train(text) - length, stream=stream)
        windows = text[starts.reshape(-1, 1) + np.arange(length)]
        return torch.from_numpy(windows.astype(np.int64))


@cache
def _read_text(kind: str) -> Text:
    """The text as indices into ``ALPHABET``; tabs become spaces, other characters are left out."""
    if kind == "english":
        text = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    else:
        folder = Path(sysconfig.get_path("stdlib"))
        # What describes or customises this machine would make the text differ between equal Pythons.
        paths = [
            path
            for path in sorted(folder.glob("*.py"))
            if not path.name.startswith(("_sysconfigdata", "sitecustomize"))
        ]
        text = "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in paths)
        if len(text) < MIN_PYTHON_CHARS:
            raise WorkloadError(
                f"charlm found {len(text):,} characters of .py source in {folder}: at least "
                f"{MIN_PYTHON_CHARS:,} are needed. Use a Python that ships its library as .py files."
            )
    return _encode(text)


def _encode(text: str) -> Text:
    table = np.full(256, 255, np.uint8)
    table[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET), dtype=np.uint8)
    table[ord("\t")] = ALPHABET.index(" ")
    raw = np.frombuffer(text.encode("latin-1", errors="ignore"), np.uint8)
    encoded: Text = table[raw]
    kept: Text = encoded[encoded != 255]
    return kept


_UPPERCASE = _encode(ALPHABET.upper())  # index of each character's capital


def _num_train(text: Text) -> int:
    return len(text) - len(text) // HELD_OUT_SHARE


def _losses(model: nn.Module, windows: Tensor) -> Tensor:
    """Cross-entropy of each next character, flat (rows·T,)."""
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
