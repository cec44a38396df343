"""Learning-rate schedules as a factor on each configuration's lr, and schedules of α."""

from __future__ import annotations

import math

from lora_alpha.spec import AlphaSchedule, Schedule


def lr_factor(step: int, *, schedule: Schedule, steps: int, warmup: int) -> float:
    """The factor on the learning rate of optimiser step ``step`` (0-based).

    Linear from 1/warmup to 1 over the first ``warmup`` steps, then 1 (constant) or
    ½·(1 + cos(π·t)) with t from 0 to 1 over the remaining steps (cosine, towards 0).

    >>> [round(lr_factor(step, schedule="cosine", steps=6, warmup=2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def alpha_factor(step: int, schedule: AlphaSchedule) -> float:
    """The factor on α at optimiser step ``step`` (0-based) of a schedule that needs no feedback.

    >>> alpha_factor(50, AlphaSchedule(kind="ramp", start=0.5, ramp_steps=100))
    0.75
    """
    if schedule.kind != "ramp":
        return 1.0
    return schedule.start + (1.0 - schedule.start) * min(1.0, step / schedule.ramp_steps)
