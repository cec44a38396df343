"""Wire format of the analysis: laws with their optima, equivalence, schedules, collapse, curvature, advice.

Each record is declared once, in ``lora_alpha.analysis``, and nested here whole; its fields are promises:
extend, never rename. Losses by seed and what intervals rest on cross too, so that every function of
``lora_alpha.analysis`` runs on what a client receives. Properties do not cross: they follow from the fields.

Where no fit is possible it is null and ``reasons`` says why; nothing is left out quietly. The names imported
here are what a client needs to speak of an answer.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from lora_alpha.analysis.bounded import BoundedOptimum
from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.collapse import COORDINATES, CollapseFit, CollapseScore, Exponent
from lora_alpha.analysis.compared import Limit
from lora_alpha.analysis.deciding import DecidingCell
from lora_alpha.analysis.equivalence import SAID, Equivalence, Verdict
from lora_alpha.analysis.horizon import Horizon, HorizonPoint
from lora_alpha.analysis.intervals import MARGIN
from lora_alpha.analysis.law import Law
from lora_alpha.analysis.optimum import WITHIN_BASIN, Optimum, Target
from lora_alpha.analysis.recommend import Recommendation
from lora_alpha.analysis.rules import Rule, RuleCost
from lora_alpha.analysis.schedules import ScheduleComparison, ScheduleVerdict
from lora_alpha.analysis.sharpness import RateAtSharpness, Sharpness, Suppression
from lora_alpha.metrics import EVAL_LOSS, Metric
from lora_alpha.wire.base import Answer

__all__ = [
    "COORDINATES",
    "MARGIN",
    "SAID",
    "WITHIN_BASIN",
    "Advice",
    "BoundedOptima",
    "BoundedOptimum",
    "Cell",
    "Cells",
    "Collapse",
    "CollapseFit",
    "CollapseScore",
    "Curvature",
    "DecidingCell",
    "Equivalence",
    "Equivalences",
    "Exponent",
    "Horizon",
    "HorizonPoint",
    "Horizons",
    "Law",
    "Laws",
    "Limit",
    "Metric",
    "Optimum",
    "RateAtSharpness",
    "Rule",
    "RuleCost",
    "ScheduleComparison",
    "ScheduleVerdict",
    "Schedules",
    "Sharpness",
    "Suppression",
    "SweepMetrics",
    "Target",
]


class Read(Answer):
    """What every answer that rests on cells says of how its runs were read.

    ``metric`` is what the values are of: for ``steps_to`` the steps until the metric asked for was that good.
    ``notes`` say how it was chosen where that is not plain.
    """

    sweep_id: str
    objective: str
    at_step: int | None = None
    steps_to: float | None = None
    metric: Metric = EVAL_LOSS
    notes: list[str] = []


class Cells(Read):
    """Answer of ``GET /sweeps/{id}/cells``."""

    cells: list[Cell]
    warnings: list[str] = []


class Laws(Read):
    """Answer of ``GET /sweeps/{id}/law``; ``rules`` are the common ones, none where the laws are of η.

    ``steps`` is after how many steps the runs were read: ``at_step``, else the length of the sweep's runs.
    """

    laws: list[Law]
    warnings: list[str] = []
    reasons: list[str] = []
    rules: list[Rule] = []
    steps: int | None = None


class Horizons(Read):
    """Answer of ``GET /sweeps/{id}/horizon``: at which ``steps`` the runs were read."""

    steps: list[int]
    horizons: list[Horizon]
    warnings: list[str] = []
    reasons: list[str] = []


class Equivalences(Read):
    """Answer of ``GET /sweeps/{id}/equivalence``; ``verdict`` is that of all ranks.

    ``reasons`` say what each rank says and which ranks it rests on.
    """

    margin: float
    verdict: Verdict
    items: list[Equivalence]
    reasons: list[str] = []


class Collapse(Read):
    """Answer of ``GET /sweeps/{id}/collapse``.

    ``verdict`` names the coordinate, or several with "or" that the data cannot tell apart; ``none``,
    ``undecided``, ``not_enough_data``; ``mixed`` where methods differ. ``fits`` has each method's, in words.
    """

    verdict: str
    items: list[CollapseScore]
    reasons: list[str] = []
    fits: list[CollapseFit] = []


class Schedules(Read):
    """Answer of ``GET /sweeps/{id}/schedules``; ``verdict`` is one sentence that can be "no".

    ``num_pending`` runs are still to come: the verdict is about those that have finished.
    """

    margin: float
    verdict: str
    num_pending: int = 0
    items: list[ScheduleComparison]


class SweepMetrics(Answer):
    """Answer of ``GET /sweeps/{id}/metrics``: what α can be chosen by.

    ``metric`` is what it is chosen by unless asked otherwise. ``unclear`` are recorded, too, but which way
    is better must be said with ``goal``.
    """

    sweep_id: str
    metric: Metric
    metrics: list[Metric]
    unclear: list[str] = []


class BoundedOptima(Read):
    """Answer of ``GET /sweeps/{id}/bounded``: the best α whose forgetting stays within a bound.

    Where nothing can be said ``reasons`` say why.
    """

    max_forgetting: float
    items: list[BoundedOptimum]
    reasons: list[str] = []


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
    """Answer of ``GET /recommend``: a recommendation, the sweep and the reading that it rests on.

    ``bounded`` is the best α within the bound on forgetting that was asked for, None without one.
    """

    sweep_id: str
    objective: str = "final"
    at_step: int | None = None
    steps_to: float | None = None
    metric: Metric = EVAL_LOSS
    notes: tuple[str, ...] = ()
    bounded: BoundedOptimum | None = None
