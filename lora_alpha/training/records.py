"""What the engine says while it trains. Plain numpy: readers need no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MetricBlock:
    """A stretch of one metric for every configuration of the pack.

    ``values[i, j]`` is configuration i at step ``start_step + j * stride`` (steps count finished
    optimiser steps: the training loss of the first step is at step 1, an evaluation before training at 0).
    A configuration that has been quarantined is NaN from then on.
    """

    metric: str
    start_step: int
    stride: int
    values: FloatArray


@dataclass(frozen=True)
class StepsDone:
    """Progress: ``step`` of ``total_steps`` optimiser steps are done."""

    step: int
    total_steps: int
    blocks: tuple[MetricBlock, ...]
    wall_time_s: float


@dataclass(frozen=True)
class CheckpointDue:
    """The complete state after ``step``: whoever holds it can continue bitwise."""

    step: int
    state: dict[str, Any]


@dataclass(frozen=True)
class AdaptersKept:
    """The adapters after ``step``, one of ``TrainSpec.adapter_steps``, in the order of the configurations.

    Each is layer → tensors, as in ``PackFinished``.
    """

    step: int
    adapters: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class RunResult:
    """The outcome of one configuration.

    ``final_loss`` and ``best_loss`` are held-out losses; None where no finite one exists.
    """

    diverged: bool
    diverged_step: int | None
    final_loss: float | None
    best_loss: float | None
    best_step: int | None
    forgetting: float | None
    summary: dict[str, float]


@dataclass(frozen=True)
class PackFinished:
    """The pack's results, in the order of its configurations, and the trained adapters."""

    results: tuple[RunResult, ...]
    adapters: dict[str, Any]
    wall_time_s: float


TrainingEvent = StepsDone | CheckpointDue | AdaptersKept | PackFinished
