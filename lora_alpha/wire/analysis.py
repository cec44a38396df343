"""Wire format of the analysis: laws with their optima, equivalence, schedules, collapse, curvature, advice.

Each record is declared once, in ``lora_alpha.analysis``, and nested here whole; its fields are promises:
extend, never rename. Losses by seed and what intervals rest on cross too, so that every function of
``lora_alpha.analysis`` runs on what a client receives. Properties do not cross: they follow from the fields.

Where no fit is possible it is null and ``reasons`` says why; nothing is left out quietly. The names imported
here are what a client needs to speak of an answer.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.collapse import CollapseScore
from lora_alpha.analysis.compared import Limit
from lora_alpha.analysis.deciding import DecidingCell
from lora_alpha.analysis.equivalence import SAID, Equivalence, Verdict
from lora_alpha.analysis.intervals import MARGIN
from lora_alpha.analysis.law import Law
from lora_alpha.analysis.optimum import WITHIN_BASIN, Optimum, Target
from lora_alpha.analysis.recommend import Recommendation
from lora_alpha.analysis.rules import Rule, RuleCost
from lora_alpha.analysis.schedules import ScheduleComparison, ScheduleVerdict
from lora_alpha.analysis.sharpness import RateAtSharpness, Sharpness, Suppression
from lora_alpha.wire.base import Answer

__all__ = [
    "MARGIN",
    "SAID",
    "WITHIN_BASIN",
    "Advice",
    "Cell",
    "Cells",
    "Collapse",
    "CollapseScore",
    "Curvature",
    "DecidingCell",
    "Equivalence",
    "Equivalences",
    "Law",
    "Laws",
    "Limit",
    "Optimum",
    "RateAtSharpness",
    "Rule",
    "RuleCost",
    "ScheduleComparison",
    "ScheduleVerdict",
    "Schedules",
    "Sharpness",
    "Suppression",
    "Target",
]


class Cells(Answer):
    """Answer of ``GET /sweeps/{id}/cells``."""

    sweep_id: str
    objective: str
    at_step: int | None = None
    cells: list[Cell]
    warnings: list[str] = []


class Laws(Answer):
    """Answer of ``GET /sweeps/{id}/law``; ``rules`` are the common ones, none where the laws are of η."""

    sweep_id: str
    objective: str
    at_step: int | None = None
    laws: list[Law]
    warnings: list[str] = []
    reasons: list[str] = []
    rules: list[Rule] = []


class Equivalences(Answer):
    """Answer of ``GET /sweeps/{id}/equivalence``; ``verdict`` is that of all ranks.

    ``reasons`` say what each rank says and which ranks it rests on.
    """

    sweep_id: str
    objective: str
    at_step: int | None = None
    margin: float
    verdict: Verdict
    items: list[Equivalence]
    reasons: list[str] = []


class Collapse(Answer):
    """Answer of ``GET /sweeps/{id}/collapse``; ``verdict`` names the coordinate, or says "none"."""

    sweep_id: str
    objective: str
    at_step: int | None = None
    verdict: str
    items: list[CollapseScore]
    reasons: list[str] = []


class Schedules(Answer):
    """Answer of ``GET /sweeps/{id}/schedules``; ``verdict`` is one sentence that can be "no".

    ``num_pending`` runs are still to come: the verdict is about those that have finished.
    """

    sweep_id: str
    objective: str
    at_step: int | None = None
    margin: float
    verdict: str
    num_pending: int = 0
    items: list[ScheduleComparison]


class Curvature(Answer):
    """Answer of ``GET /curvature``: extremes of finished probes and what follows from them.

    ``rate_exponent`` is the slope of log η* on log(1/λ_max): 1 if the best η follows 1/λ_max.
    """

    sweep_id: str | None
    points: list[Sharpness]
    suppression: list[Suppression]
    rates: list[RateAtSharpness]
    rate_exponent: float | None
    num_unfinished: int
    num_failed: int
    reasons: list[str] = []


@dataclass(frozen=True, kw_only=True, config=Answer.model_config)
class Advice(Recommendation):
    """Answer of ``GET /recommend``: a recommendation, and the sweep that it rests on."""

    sweep_id: str
