"""What a recorded metric means: which way is better, in what unit, and whether ratios of it mean anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Goal = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """A metric that runs record.

    Attributes:
        name: As recorded.
        goal: ``min`` where lower is better, ``max`` where higher is.
        unit: For people; "" for a plain number.
        has_zero: Its 0 is an absence (of loss, of forgetting), so that "2 % lower" means something as long as
            every value is above 0. Not so for rewards and logarithms of probabilities.
    """

    name: str
    goal: Goal = "min"
    unit: str = ""
    has_zero: bool = False


EVAL_LOSS = Metric("eval_loss", unit="nats", has_zero=True)
