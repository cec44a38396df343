"""Wire format of what tests the claims: α over time, and curvature in two coordinate systems."""

from __future__ import annotations

from typing import Literal

from lora_alpha.wire.base import Wire

ScheduleVerdict = Literal["better", "worse", "equivalent", "undecided", "not_enough_data"]


class ScheduleItem(Wire):
    """One schedule of α against constant α, each at its best α, paired by seed.

    ``difference`` is relative to the loss: negative means that the schedule is better. Its interval is at
    95 % for all schedules of the same method, rank and η together.
    """

    method: str
    rank: int
    lr: float
    lr_ratio: float
    alpha_schedule: str
    best_alpha: float | None
    loss: float | None
    constant_alpha: float | None
    constant_loss: float | None
    num_alphas: int
    num_diverged: int
    difference: float | None
    low: float | None
    high: float | None
    num_seeds: int
    verdict: ScheduleVerdict
    reason: str


class Schedules(Wire):
    """Answer of ``GET /sweeps/{id}/schedules``; ``verdict`` is one sentence that can be "no".

    ``num_pending`` runs are still to come: the verdict is about those that have finished.
    """

    sweep_id: str
    objective: str
    at_step: int | None = None
    margin: float
    verdict: str
    num_pending: int = 0
    items: list[ScheduleItem]


class SharpnessItem(Wire):
    """Signed extremes of one finished probe, or of one ``layer`` of it; ``step`` 0 is the start, B = 0."""

    probe_id: str
    run_id: str | None
    workload: str
    space: str
    method: str
    rank: int | None
    alpha: float | None
    scale: float | None
    lr: float | None
    seed: int
    step: int
    layer: str
    in_features: int
    lambda_max: float
    lambda_max_error: float | None
    lambda_min: float | None
    lambda_min_error: float | None


class SuppressionPointItem(Wire):
    """λ_LoRA/λ_full at one α, geometric mean over ``num_pairs`` seeds."""

    alpha: float
    scale: float | None
    ratio: float
    num_pairs: int


class SuppressionItem(Wire):
    """λ_LoRA/λ_full against α at one rank and step; ``crossing`` is the α at which it is 1.

    ``predicted`` is √(3·in·r). ``slope`` is d log λ_LoRA / d log α at the crossing.
    """

    method: str
    rank: int
    lr: float | None
    step: int
    points: list[SuppressionPointItem]
    crossing: float | None
    slope: float | None
    predicted: float
    in_features: int
    reason: str
    workload: str = ""


class RateItem(Wire):
    """The best η at one (method, rank, α) beside λ_max in LoRA coordinates at the start."""

    method: str
    rank: int
    alpha: float
    lambda_max: float
    lr: float
    lr_low: float | None
    lr_high: float | None
    censored: str


class Curvature(Wire):
    """Answer of ``GET /curvature``: extremes of finished probes and what follows from them.

    ``rate_exponent`` is the slope of log η* on log(1/λ_max): 1 if the best η follows 1/λ_max.
    """

    sweep_id: str | None
    points: list[SharpnessItem]
    suppression: list[SuppressionItem]
    rates: list[RateItem]
    rate_exponent: float | None
    num_unfinished: int
    num_failed: int
    reasons: list[str] = []
