"""What is asked of a service beside its records: verbs, exports, which number of a run counts."""

from __future__ import annotations

from typing import Literal, TypedDict, get_args

from lora_alpha.metrics import Goal
from lora_alpha.spec import Objective

Verb = Literal["pause", "resume", "stop", "cancel", "retry"]
CsvKind = Literal[  # fmt: skip
    "runs",
    "history",
    "cells",
    "optima",
    "law",
    "probes",
    "collapse",
    "collapse_points",
    "rules",
    "advice",
    "horizon",
    "verdicts",
    "deciding",
]
CSV_KINDS: tuple[CsvKind, ...] = get_args(CsvKind)


class ReadingQuery(TypedDict, total=False):
    """Which number of a run counts.

    Attributes:
        metric: A recorded metric; the sweep's own unless given.
        goal: Which way is better; as the metric is declared or called unless given.
        objective: The metric at the end, or the best on the way.
        at_step: Read there in place of the end.
        steps_to: In place of the metric the steps until it is this good.
    """

    metric: str | None
    goal: Goal | None
    objective: Objective
    at_step: int | None
    steps_to: float | None
