"""λ_max in LoRA coordinates beside full-weight coordinates: where they meet, and what it says of the best η.

Torch-free: works on the numbers that finished probes left. ``lora_alpha/curvature/suppression.py`` finds a
crossing by probing; here it is read off the α that were probed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.optimum import Censored, Optimum
from lora_alpha.scaling import spectral_match_alpha

CurveKey = tuple[str, int, str, int, float, int]


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """The signed extremes of one probe, or of one layer of it.

    Attributes:
        probe_id: The probe.
        run_id: The run whose weights were probed, None at a fresh point.
        workload: Its workload.
        space: ``lora`` or ``full``.
        method: Fine-tuning method.
        rank: Rank of the adapter at the point, None where it has none.
        alpha: Its α.
        scale: Its effective scale s.
        lr: Learning rate of the run, None at a fresh point.
        seed: Seed of adapter and batches.
        step: Optimiser steps before the probe; 0 is the start, B = 0.
        layer: The layer, ``""`` for all adapted layers together.
        in_features: Median input width of the layers.
        lambda_max: Largest eigenvalue.
        lambda_max_error: Its standard error.
        lambda_min: Smallest, None where the probe did not look for it.
        lambda_min_error: Its standard error.
    """

    probe_id: str
    run_id: str | None = None
    workload: str = ""
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
    lambda_max_error: float | None = None
    lambda_min: float | None
    lambda_min_error: float | None = None


@dataclass(frozen=True)
class SuppressionPoint:
    """λ_LoRA/λ_full at one α: geometric mean over the seeds at which both were probed."""

    alpha: float
    scale: float | None
    ratio: float
    num_pairs: int


@dataclass(frozen=True)
class Suppression:
    """One curve of λ_LoRA/λ_full against α, and the α at which it crosses 1.

    Attributes:
        points: By rising α.
        crossing: That α, interpolated between the two nearest in log α and log ratio; None where all points
            lie on one side.
        slope: d log λ_LoRA / d log α there, or over the whole curve where there is no crossing; at the start
            between 1 (the gradient's block decides) and 2 (the curvature does). None with one α.
        predicted: √(3·in·r), where a generic sharpest direction crosses.
        reason: Why there is no crossing, ``""`` where there is one.
    """

    method: str
    rank: int
    lr: float | None
    step: int
    points: tuple[SuppressionPoint, ...]
    crossing: float | None
    slope: float | None
    predicted: float
    in_features: int
    reason: str
    workload: str = ""


@dataclass(frozen=True)
class RateAtSharpness:
    """The best η of one (method, rank, α) beside the mean λ_max in LoRA coordinates at the start."""

    method: str
    rank: int
    alpha: float
    lambda_max: float
    lr: float
    lr_low: float | None
    lr_high: float | None
    censored: Censored


def suppression_curves(sharpness: Iterable[Sharpness]) -> list[Suppression]:
    """λ_LoRA/λ_full against α for each (workload, width, method, rank, lr, step).

    At step 0 the lr does not matter. The width stands for a workload's options, which a probe does not carry.

    A LoRA probe is paired with the full-weight probe of the same seed, step, rank and α; at the start the
    weights are W0 whatever the adapter, so there any full-weight probe of that seed will do.
    """
    whole = [item for item in sharpness if item.layer == "" and item.lambda_max > 0]
    full: dict[object, list[float]] = {}
    for item in whole:
        if item.space == "full":
            full.setdefault(_point(item), []).append(item.lambda_max)
    groups: dict[CurveKey, dict[float, list[tuple[Sharpness, float]]]] = {}
    for item in whole:
        if item.space != "lora" or item.rank is None or item.alpha is None:
            continue
        against = full.get(_point(item))
        if against:
            lr = 0.0 if item.step == 0 else item.lr or 0.0
            key = (item.workload, item.in_features, item.method, item.rank, lr, item.step)
            ratio = item.lambda_max / statistics.fmean(against)
            groups.setdefault(key, {}).setdefault(item.alpha, []).append((item, ratio))
    return [_suppression(key, by_alpha) for key, by_alpha in sorted(groups.items())]


def rates_at_sharpness(sharpness: Iterable[Sharpness], optima: Sequence[Optimum]) -> list[RateAtSharpness]:
    """The best η of each curve of a sweep at which λ_max was probed at the start.

    Args:
        sharpness: Probes of the sweep.
        optima: ``find_optima(cells, target="lr")``.
    """
    at_start: dict[tuple[str, int | None, float | None], list[float]] = {}
    for item in sharpness:
        if item.space == "lora" and item.step == 0 and item.layer == "" and item.lambda_max > 0:
            at_start.setdefault((item.method, item.rank, item.alpha), []).append(item.lambda_max)
    found = []
    for optimum in optima:
        values = at_start.get((optimum.method, optimum.rank, optimum.fixed))
        if values and optimum.lr_ratio == 1.0:
            found.append(
                RateAtSharpness(
                    method=optimum.method,
                    rank=optimum.rank,
                    alpha=optimum.fixed,
                    lambda_max=statistics.fmean(values),
                    lr=optimum.value,
                    lr_low=optimum.low,
                    lr_high=optimum.high,
                    censored=optimum.censored,
                )
            )
    return sorted(found, key=lambda item: (item.method, item.rank, item.alpha))


def rate_exponent(rates: Sequence[RateAtSharpness]) -> float | None:
    """The slope of log η* on log(1/λ_max) over optima inside the grid; 1 if η* follows 1/λ_max.

    The best η before a divergence (``cliff``) counts: it lies within a grid step. One on the grid's edge
    does not.

    None with fewer than 3 of them, or where all λ_max are the same.
    """
    inside = [item for item in rates if not item.censored.endswith("edge")]
    x = np.log([1 / item.lambda_max for item in inside])
    if len(inside) < 3 or float(np.ptp(x)) < 1e-9:
        return None
    return float(np.polyfit(x, np.log([item.lr for item in inside]), 1)[0])


def what_is_missing(
    sharpness: Sequence[Sharpness], optima: Sequence[Optimum], rates: Sequence[RateAtSharpness]
) -> list[str]:
    """What has to be probed or trained before suppression and rates can be read off; empty if nothing."""
    if not sharpness:
        return ["no probe of the extremes has finished yet"]
    spaces = {item.space for item in sharpness}
    reasons = []
    if spaces != {"lora", "full"}:
        (only,) = spaces
        reasons.append(f"only space {only!r} was probed: the ratio needs both")
    if not optima:
        reasons.append("no best η: needs at least three learning rates at one rank and α")
    elif not rates:
        reasons.append("no probe in LoRA coordinates at step 0 belongs to a rank and α with a best η")
    return reasons


def _point(item: Sharpness) -> object:
    if item.step == 0:
        return (item.workload, item.in_features, item.seed)
    return (
        item.workload,
        item.in_features,
        item.seed,
        item.step,
        item.method,
        item.rank,
        item.alpha,
        item.lr,
    )


def _suppression(key: CurveKey, by_alpha: dict[float, list[tuple[Sharpness, float]]]) -> Suppression:
    workload, in_features, method, rank, lr, step = key
    points = tuple(
        SuppressionPoint(
            alpha=alpha,
            scale=pairs[0][0].scale,
            ratio=math.exp(statistics.fmean(math.log(ratio) for _, ratio in pairs)),
            num_pairs=len(pairs),
        )
        for alpha, pairs in sorted(by_alpha.items())
    )
    crossing, slope, reason = _crossing(points)
    return Suppression(
        method=method,
        rank=rank,
        lr=lr or None,
        step=step,
        points=points,
        crossing=crossing,
        slope=slope,
        predicted=spectral_match_alpha(in_features, rank),
        in_features=in_features,
        reason=reason,
        workload=workload,
    )


def _crossing(points: Sequence[SuppressionPoint]) -> tuple[float | None, float | None, str]:
    x = [math.log(point.alpha) for point in points]
    y = [math.log(point.ratio) for point in points]
    for index in range(len(points) - 1):
        if y[index] <= 0 < y[index + 1]:
            slope = (y[index + 1] - y[index]) / (x[index + 1] - x[index])
            return math.exp(x[index] - y[index] / slope), slope, ""
    overall = (y[-1] - y[0]) / (x[-1] - x[0]) if len(points) > 1 else None
    if max(y) <= 0:
        return None, overall, f"below 1 up to the largest α probed, {points[-1].alpha:g}"
    if min(y) > 0:
        return None, overall, f"above 1 from the smallest α probed, {points[0].alpha:g}"
    return None, overall, "crosses 1 downwards only"
