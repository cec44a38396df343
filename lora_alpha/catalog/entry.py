"""The record that describes one workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.dataclasses import dataclass as checked_dataclass

from lora_alpha.metrics import Metric
from lora_alpha.spec import DType, LearningRate, Positive, Rank, Seed, TrainSettings

Family = Literal["sft", "reasoning-sft", "reasoning-rl", "multimodal", "classification", "synthetic"]


class SweepDefaults(TrainSettings):
    """What a sweep of this workload uses where the request is silent; training fields as declared there."""

    methods: list[str] = ["lora"]
    ranks: list[Rank]
    alphas: list[Positive]
    lrs: list[LearningRate] = [2e-4]
    seeds: list[Seed] = [0, 1, 2]


@dataclass(frozen=True)
class Footprint:
    """What a workload needs at given options, for pack sizes and memory estimates.

    Attributes:
        tokens_per_example: Rows that one example puts through each adapted layer.
        base_bytes: The frozen model.
        bytes_per_token: What one more row adds to the peak of a training step, logits included.
        train_flops_per_token: Floating-point operations of a step per row, forward and backward; 0: unknown.
    """

    tokens_per_example: int = 1
    base_bytes: int = 0
    bytes_per_token: int = 0
    train_flops_per_token: float = 0.0


@checked_dataclass(frozen=True)
class WorkloadInfo:
    """One workload as people see it; a field of another type is refused, since packages make them, too.

    Attributes:
        name: Key in requests; also the item's id in the API.
        family: Task family.
        title: A few words for menus.
        summary: What is trained on what, one or two sentences.
        regime: Which regime of the α law it sits in, honestly.
        metric: What ``eval_loss`` measures, with its unit.
        forgetting: What ``forgetting_loss`` measures, or "" if there is no source task.
        metrics: What the metrics that it records mean, where ``lora_alpha.metrics`` does not know them or
            says something else.
        options: Pydantic model of ``workload_options``; every field has a description, and a default unless
            only the user knows it (a model, a file).
        defaults: Sweep defaults.
        implementation: ``module:class`` of the ``Workload`` that trains it; imported when it is needed.
        seconds_per_step: Rough seconds for one configuration's optimiser step in a full pack on one
            CPU core at the default options: for time estimates before any run was measured.
        tokens_per_example: Rows that one example puts through each adapted layer; for pack sizes.
        pack_limit: Most configurations that one pack may hold.
        footprint_of: What it needs at given options (an instance of ``options``) and dtype, where they
            decide; None where ``tokens_per_example`` says all. Torch-free and quick: it runs in the API.
        reads_files: Whether options name files: the implementation is told as ``roots`` where they may lie.
        auto_class: transformers' class that loads the base, of a workload on a model of the user's own.
        task_type: PEFT's name of what its adapters are for; None: of no task that PEFT knows.
    """

    name: str
    family: Family
    title: str
    summary: str
    regime: str
    metric: str
    forgetting: str
    options: type[BaseModel]
    defaults: SweepDefaults
    implementation: str
    seconds_per_step: float
    tokens_per_example: int = 1
    pack_limit: int = 64
    footprint_of: Callable[[Any, DType], Footprint] | None = None
    reads_files: bool = False
    auto_class: str | None = None
    task_type: str | None = None
    metrics: tuple[Metric, ...] = ()

    def footprint(self, options: Mapping[str, Any], *, dtype: DType = "float32") -> Footprint:
        """What the workload needs at ``options``, defaults filled in, when it trains in ``dtype``."""
        if self.footprint_of is None:
            return Footprint(tokens_per_example=self.tokens_per_example)
        return self.footprint_of(self.options.model_validate(dict(options)), dtype)
