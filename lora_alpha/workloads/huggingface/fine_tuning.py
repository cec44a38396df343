"""What every workload on a transformers model and data of the user's own shares: prepare, build, inspect.

A workload is prepared without reading weights: the folder, the tokenizer and the data are checked, and what
is made of the data is cached. Weights are read by ``build_model``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_alpha.errors import WorkloadError
from lora_alpha.workloads.base import Batch, Progress, Workload
from lora_alpha.workloads.huggingface.data import batching
from lora_alpha.workloads.huggingface.data.sources import Roots, local_path, model_folder
from lora_alpha.workloads.huggingface.findings import READ_BYTES, data_warnings, model_findings
from lora_alpha.workloads.huggingface.model.loading import (
    check_model_folder,
    context_length,
    enable_checkpointing,
    load_model,
    load_tokenizer,
    read_config,
)
from lora_alpha.workloads.huggingface.model.targets import find_targets
from lora_alpha.workloads.huggingface.problems import problem

Part = TypeVar("Part")


class TwoSides(Protocol):
    """A data set made ready."""

    @property
    def train(self) -> Sized:
        """Examples to train on."""
        ...

    @property
    def held_out(self) -> Sized:
        """Examples to hold out."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What an inspection says about them, JSON-able."""
        ...


Data = TypeVar("Data", bound=TwoSides)


@dataclass(frozen=True)
class ModelFiles:
    """What is read of a model before its weights."""

    folder: Path
    config: Any
    tokenizer: Any


class FineTuningWorkload(Workload, Generic[Data]):
    """A transformers model and a data set of the user's own.

    Args:
        options: What the user chose: ``ModelOptions``, ``DataOptions`` and ``max_tokens``.
        roots: Folders that local models and data may come from; None: anywhere, for a caller that trains in
            its own process. A service hands in its allowed roots.

    Attributes:
        auto_class: transformers' class that picks the architecture.
        new_weights: Regular expression on names of weights that the model's files may lack; "": none.
        example: What an example is called in warnings, one and many.
        text: What ``max_tokens`` cuts, one and many.
    """

    auto_class: Any
    new_weights = ""
    example = ("example", "examples")
    text = ("example", "examples")

    def __init__(self, options: Any, *, roots: Roots = None) -> None:
        self.options = options
        self.roots = roots
        self._files: ModelFiles | None = None
        self._data: Data | None = None

    def prepare(self, cache_dir: Path) -> Iterator[Progress]:
        """Find and check the model and the data, and cache what is made of them; nothing the second time.

        Raises:
            InvalidSpec: With the option that is wrong, what was found and what to do.
        """
        if self._data is not None:
            return
        yield Progress("finding the model", 0, 1)
        folder = model_folder(self.options.model, revision=self.options.revision, roots=self.roots)
        check_model_folder(folder)
        config = read_config(folder)
        self._check_config(folder, config)
        files = ModelFiles(folder, config, load_tokenizer(folder))
        longest = self._longest(files)
        if longest is not None and self.options.max_tokens > longest:
            raise problem(
                "max_tokens",
                f"got {self.options.max_tokens}: the model reads at most {longest} tokens: lower it",
            )
        self._data = yield from self._read(files, cache_dir)
        self._files = files

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The base, every parameter frozen, without dropout; the same weights on each call.

        Raises:
            WorkloadError: If ``prepare`` has not run to its end.
            InvalidSpec: If the weights do not fit, or the model cannot do this task.
        """
        model: nn.Module = load_model(
            self.folder,
            self.auto_class,
            device=device,
            dtype=dtype,
            new_weights=self.new_weights,
            **self._config_changes(),
        )
        self._finish_model(model)
        if self.options.gradient_checkpointing:
            enable_checkpointing(model)
        return model

    def targets(self, model: nn.Module) -> list[str]:
        """The layers that the options name.

        Raises:
            InvalidSpec: If there is no such layer, or it cannot carry adapters.
        """
        return find_targets(model, self.options.targets)

    def patterns(self) -> dict[str, Any]:
        """Ranks and α of layers that have their own."""
        return {"rank_pattern": self.options.rank_pattern, "alpha_pattern": self.options.alpha_pattern}

    def micro_batches(self, batch: Batch, *, num_configs: int) -> list[Batch]:
        """The batch in ``accumulation`` parts whose losses add up to the whole's."""
        if self.options.accumulation == 1:
            return [batch]
        return list(batching.micro_batches(batch, num_configs=num_configs, parts=self.options.accumulation))

    def findings(self) -> dict[str, Any]:
        """What an inspection shows; weights of up to ``READ_BYTES`` are read in full.

        Raises:
            InvalidSpec: If model, targets or weights would stop a run.
        """
        options, facts = self.options, self.data.facts
        model = model_findings(self.folder, self.auto_class, options=options, skipped=self.new_weights)
        warnings = data_warnings(facts, max_tokens=options.max_tokens, example=self.example, text=self.text)
        if not options.revision and local_path(options.model, option="model", roots=self.roots) is None:
            warnings.append(
                "the model is read from the hub's main branch, which may change: give a commit as revision, "
                "so that later runs train the same model"
            )
        found = {**facts, **model, "warnings": warnings}
        if found["weights_bytes"] <= READ_BYTES:
            self._inspect(self.build_model(device=torch.device("cpu"), dtype=torch.float32), found)
        else:
            warnings.append("the weights are large and were not read: only their headers were checked")
        return found

    @property
    def folder(self) -> Path:
        """Where the model's files lie.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        return self._prepared(self._files).folder

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        return self._prepared(self._files).tokenizer

    @property
    def positions(self) -> int | None:
        """Most tokens that the model can read; None where nothing sets a limit.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        return self._longest(self._prepared(self._files))

    @property
    def data(self) -> Data:
        """The data.

        Raises:
            WorkloadError: Before ``prepare``.
        """
        return self._prepared(self._data)

    @property
    def held_out_indices(self) -> NDArray[np.int64]:
        """Which of the held-out examples an evaluation reads: ``num_eval`` of them, evenly spread."""
        count = len(self.data.held_out)
        return np.linspace(0, count - 1, min(count, self.options.num_eval)).astype(np.int64)

    def _check_config(self, folder: Path, config: Any) -> None:
        """Refuse a model that cannot do this task, by its configuration."""

    def _longest(self, files: ModelFiles) -> int | None:
        """Most tokens that the model can read; None where nothing sets a limit."""
        return context_length(files.config)

    def _read(self, files: ModelFiles, cache_dir: Path) -> Generator[Progress, None, Data]:
        """The data as the task needs them."""
        raise NotImplementedError

    def _config_changes(self) -> dict[str, Any]:
        """What the task lays over the model's configuration."""
        return {}

    def _finish_model(self, model: Any) -> None:
        """Refuse a model that cannot do this task, or make what its files lack."""

    def _inspect(self, model: nn.Module, found: dict[str, Any]) -> None:
        """Add to ``found`` what only the built model shows."""

    def _prepared(self, part: Part | None) -> Part:
        if part is None:
            raise WorkloadError(f"{self.name} is not prepared: run prepare(cache_dir) to its end first")
        return part
