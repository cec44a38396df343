"""Wire format of the analysis: laws with their optima, equivalence, collapse, recommendation.

Where no fit is possible it is null and ``reasons`` says why; nothing is left out quietly.
"""

from __future__ import annotations

from typing import Literal

from lora_alpha.wire.base import Wire
from lora_alpha.wire.sweeps import Cell

Target = Literal["alpha", "lr"]
Censored = Literal["", "low_edge", "high_edge", "cliff"]
Verdict = Literal["equivalent", "alpha_better", "lr_better", "undecided", "mixed", "not_enough_data"]
Basis = Literal["measured", "interpolated", "extrapolated"]


class OptimumItem(Wire):
    """The best value of the target axis at one rank, with its 95 % interval and its basin.

    For ``target`` "alpha" the values are α at fixed ``lr``; for "lr" they are η at fixed ``alpha``.
    ``censored``: "" where the grid encloses the optimum; "low_edge" or "high_edge" where it is the last value
    measured on that side; "cliff" where the next value diverged; ``bound_low`` and ``bound_high`` then say
    where it must lie. The basin is where the loss is within 2 % of the best; an open end runs off the grid.
    """

    method: str
    rank: int
    lr: float | None
    alpha: float | None
    lr_ratio: float
    target: Target
    value: float
    low: float | None
    high: float | None
    scale: float | None
    basin_low: float
    basin_high: float
    basin_open_low: bool
    basin_open_high: bool
    basin_octaves: float
    loss: float
    censored: Censored
    bound_low: float | None
    bound_high: float | None
    num_seeds: int
    num_diverged: int


class FitItem(Wire):
    """α* (or η*) = coefficient · rank^exponent with 95 % intervals; scatter in octaves.

    ``bend`` is the quadratic term of log₂ α* in log₂ r: an interval that excludes 0 contradicts a power law.
    """

    exponent: float
    exponent_low: float | None
    exponent_high: float | None
    coefficient: float
    coefficient_low: float | None
    coefficient_high: float | None
    scatter_octaves: float
    bend: float | None = None
    bend_low: float | None = None
    bend_high: float | None = None


class Band(Wire):
    """The fitted line at these ranks with its 95 % band, for drawing; empty ends without an interval."""

    rank: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


class ModelItem(Wire):
    """One candidate exponent (null: free): its AICc, and how much worse than the best it is."""

    name: str
    exponent: float | None
    aicc: float
    delta: float


class RuleItem(Wire):
    """A common rule for α at one rank: ``cost`` is its loss / best measured loss - 1.

    ``cost`` is null where that α was not measured (it is never extrapolated) or diverged.
    """

    rule: str
    rank: int
    alpha: float
    measured: bool
    diverged: bool
    loss: float | None
    best_loss: float
    cost: float | None


class RivalItem(Wire):
    """A published exponent, calibrated at one rank and judged on the others.

    ``octaves`` is the mean |log₂(predicted / optimum)|; ``in_basin`` how many predictions cost at most 2 %.
    """

    name: str
    exponent: float
    source: str
    calibrated_at: int
    octaves: float
    in_basin: int
    num_judged: int


class LawItem(Wire):
    """The law of one method at one lr (or α): its fit, the optima under it and what a reader must know.

    ``fit`` uses censored optima by their likelihood, ``fit_uncensored`` leaves them out.
    """

    method: str
    lr: float | None
    alpha: float | None
    lr_ratio: float
    target: Target
    fit: FitItem | None
    fit_uncensored: FitItem | None
    band: Band | None
    optima: list[OptimumItem]
    models: list[ModelItem]
    rules: list[RuleItem]
    rivals: list[RivalItem]
    num_ranks: int
    num_censored: int
    num_seeds: int
    num_diverged: int
    num_excluded: int
    reasons: list[str]
    verdict: str


class Laws(Wire):
    """Answer of ``GET /sweeps/{id}/law``."""

    sweep_id: str
    objective: str
    at_step: int | None = None
    laws: list[LawItem]
    warnings: list[str] = []
    reasons: list[str] = []


class EquivalenceItem(Wire):
    """Best over α at the smallest η against best over η at the smallest α, paired by seed, at one rank.

    ``difference`` is relative to the loss: negative means that the α route reaches the lower one.
    """

    method: str
    rank: int
    base_alpha: float
    base_lr: float
    best_alpha: float | None
    best_lr: float | None
    loss_alpha_route: float | None
    loss_lr_route: float | None
    diverged_alpha_route: int
    diverged_lr_route: int
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    num_seeds: int
    verdict: Verdict
    reason: str


class Equivalences(Wire):
    """Answer of ``GET /sweeps/{id}/equivalence``; ``verdict`` is that of every rank where they agree."""

    sweep_id: str
    objective: str
    at_step: int | None = None
    margin: float
    verdict: Verdict
    items: list[EquivalenceItem]
    reasons: list[str] = []


class CollapsePointItem(Wire):
    """One measured cell on a coordinate's axis."""

    rank: int
    lr: float
    alpha: float
    x: float
    loss: float


class CollapseItem(Wire):
    """How well one coordinate lays all curves on each other: 1 is perfect, 0 no better than a constant."""

    method: str
    coordinate: str
    score: float | None
    num_compared: int
    num_alone: int
    points: list[CollapsePointItem]


class Collapse(Wire):
    """Answer of ``GET /sweeps/{id}/collapse``; ``verdict`` names the coordinate, or says "none"."""

    sweep_id: str
    objective: str
    at_step: int | None = None
    verdict: str
    items: list[CollapseItem]
    reasons: list[str] = []


class RecommendationItem(Wire):
    """Answer of ``GET /recommend``: which α to use at one rank and lr, and on what evidence."""

    sweep_id: str
    method: str
    rank: int
    lr: float
    alpha: float
    scale: float
    alpha_low: float | None
    alpha_high: float | None
    basin_low: float | None
    basin_high: float | None
    basis: Basis
    expected_loss: float | None
    warnings: list[str]
    snippet: str
    num_supporting_runs: int
    supporting_cells: list[Cell]
