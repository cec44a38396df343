"""Learning-rate schedules as a factor on each configuration's lr, and what moves α during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lora_alpha.spec import AlphaSchedule, LRSchedule

# A controlled factor stays within this range: beyond it the target is out of α's reach, and α would run away.
FACTOR_LOW, FACTOR_HIGH = 1 / 16, 16.0
# Half of the correction that a quantity proportional to s needs, on a log scale: what is measured also moves
# by itself between two watched steps, and the full correction would overshoot.
GAIN = 0.5
MAX_CHANGE = 2.0  # of the factor at one watched step; the weight jumps with it


def lr_factor(step: int, *, schedule: LRSchedule, steps: int, warmup: int) -> float:
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


def controlled_factor(factor: float, *, measured: float, target: float) -> float:
    """The next factor on α of a configuration that holds ``target``.

    ``factor · (target/measured)^½``, changed by at most a factor of 2 and kept within 1/16 … 16. A
    measurement that says nothing (not finite, or 0 as the drift ratio of a first step) leaves it alone.

    >>> controlled_factor(1.0, measured=4.0, target=1.0)
    0.5
    >>> controlled_factor(16.0, measured=1e-6, target=1.0)
    16.0
    """
    if not (math.isfinite(measured) and measured > 0):
        return factor
    wanted: float = (target / measured) ** GAIN
    change = min(max(wanted, 1 / MAX_CHANGE), MAX_CHANGE)
    return min(max(factor * change, FACTOR_LOW), FACTOR_HIGH)


class AlphaFactors:
    """The factors on α of a pack, step by step: ramps by the clock, controlled ones by what was measured.

    Only s moves; A and B stay as they are, so ``ΔW = s·B·A`` moves with it at once. Dividing B by the same
    factor would keep the weight where it is, but then a schedule of α is a schedule of lr_B and nothing else
    (``docs/dynamics-and-curvature.md``), and the update norm could not be held by it.

    Ask ``at(step)`` before a step and tell ``observe`` after a watched one. Lists are in pack order.
    """

    def __init__(self, schedules: Sequence[AlphaSchedule]) -> None:
        self._schedules = tuple(schedules)
        self._held = [1.0] * len(self._schedules)
        self.moves = any(schedule.kind != "constant" for schedule in self._schedules)
        self.watched = tuple(sorted({s.target_metric for s in self._schedules if s.kind == "hold"}))

    def at(self, step: int) -> list[float]:
        """The factors of optimiser step ``step`` (0-based)."""
        return [
            held if schedule.kind == "hold" else alpha_factor(step, schedule)
            for schedule, held in zip(self._schedules, self._held, strict=True)
        ]

    def observe(self, measured: Mapping[str, Sequence[float]]) -> None:
        """What a watched step did: each of ``watched`` by name, one value a configuration."""
        for pack_index, schedule in enumerate(self._schedules):
            if schedule.kind == "hold":
                self._held[pack_index] = controlled_factor(
                    self._held[pack_index],
                    measured=measured[schedule.target_metric][pack_index],
                    target=schedule.target,
                )

    def state(self) -> dict[str, Any]:
        """What ``load_state`` needs to continue bitwise."""
        return {"held": list(self._held)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Undo ``state``."""
        self._held = list(state["held"])
