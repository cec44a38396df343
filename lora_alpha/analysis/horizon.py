"""The law over the horizon: p and C against the step at which the runs are read."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lora_alpha.analysis.cells import Cell, constant_alpha
from lora_alpha.analysis.law import HALF, MIN_RANKS, Law, fit_laws, no_law_reasons
from lora_alpha.analysis.optimum import CurveKey, Target, curves_of

MAX_STEPS = 16  # at which laws are fitted unless others are named: a fit may cost a tenth of a second
FLAT = 0.1  # a change of p that moves α* by less than half an octave over a factor of 16 in rank

Trend = Literal["rises", "falls", "flat", "undecided"]


@dataclass(frozen=True)
class Training:
    """What decides whether runs read at a step are what shorter runs would have been.

    Attributes:
        lr_schedule: Of η, after the warm-up; None where it was not recorded.
        warmup: Steps over which η rises.
        steps: Of a whole run.
    """

    lr_schedule: str | None
    warmup: int
    steps: int

    def decaying(self, step: int) -> bool | None:
        """Whether η at ``step`` is not what it is at the end of a run of ``step`` steps; None if unknown.

        The warm-up is counted in steps, so within it (and one step on, at the peak), with a constant η after
        it, and at the end of a run, runs read at ``step`` are runs of ``step`` steps.
        """
        if not self.warmup + 1 < step < self.steps or self.lr_schedule == "constant":
            return False
        return None if self.lr_schedule is None else True

    def warming(self, step: int) -> bool:
        """Whether η still rises up to ``step``."""
        return step <= self.warmup

    def conditions(self, steps: Sequence[int]) -> list[str]:
        """What a reader of laws at these steps must know of them."""
        told = []
        if any(self.decaying(step) for step in steps):
            told.append(
                f"η decays ({self.lr_schedule}) over all {self.steps} steps. A run of fewer steps would have "
                "decayed to the same end sooner: points before the last are no laws of shorter runs. A sweep "
                "with a constant η gives these."
            )
        if any(self.decaying(step) is None for step in steps):
            told.append(
                "How η moved was not recorded with these runs: points before the last are laws of shorter "
                "runs only if it was constant."
            )
        if any(self.warming(step) for step in steps):
            told.append(
                f"η rises over the first {self.warmup} steps: points there are laws of a smaller η, and what "
                "is said of p leaves them out."
            )
        return told


@dataclass(frozen=True, kw_only=True)
class HorizonPoint:
    """A law of the runs as they were at ``step``; see ``Law`` for the counts, the reasons and the verdict.

    ``exponent`` is p, ``coefficient`` C, with their 95 % intervals; None where nothing could be fitted.
    ``num_pending`` runs have yet to come to this step. ``decaying`` (None: unknown): the point is no law of
    runs of ``step`` steps. ``warming``: η still rises there.
    """

    step: int
    exponent: float | None
    exponent_low: float | None
    exponent_high: float | None
    coefficient: float | None
    coefficient_low: float | None
    coefficient_high: float | None
    num_ranks: int
    num_censored: int
    num_seeds: int
    num_diverged: int
    num_pending: int
    decaying: bool | None
    warming: bool
    reasons: tuple[str, ...]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """The law of one method at one lr (or α) over the steps, in their order.

    ``change`` is p at the last point minus p at the first, of those that have an interval and no warm-up;
    ``change_low`` and ``change_high`` its 95 % interval, which is too wide rather than too narrow. ``trend``
    says what follows; None without two such points. Between steps ``crosses_from`` and ``crosses_to`` p goes
    from one side of ½ to the other, its interval with it; target ``alpha`` alone.
    """

    method: str
    lr: float | None
    alpha: float | None
    lr_ratio: float
    target: Target
    points: tuple[HorizonPoint, ...]
    change: float | None
    change_low: float | None
    change_high: float | None
    trend: Trend | None
    crosses_from: int | None
    crosses_to: int | None
    verdict: str


@dataclass(frozen=True)
class _Reading:
    """A point that has an interval."""

    step: int
    p: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.p:.2f} ({self.low:.2f} to {self.high:.2f}) at step {self.step}"


def spread_steps(recorded: Iterable[int], *, most: int = MAX_STEPS) -> list[int]:
    """At most ``most`` of the recorded steps, evenly on a log scale, with the first and the last.

    Between them each is the recorded one that is nearest to its place. Step 0 is left out: nothing has been
    trained there.

    >>> spread_steps(range(0, 1001), most=4)
    [1, 10, 100, 1000]
    """
    steps = np.unique([step for step in recorded if step > 0])
    if len(steps) <= most:
        return [int(step) for step in steps]
    wanted = np.linspace(math.log(steps[0]), math.log(steps[-1]), most)
    nearest = np.abs(np.log(steps)[:, None] - wanted).argmin(axis=0)
    return [int(step) for step in steps[np.unique(nearest)]]


def recorded_before(asked: Iterable[int], recorded: Iterable[int]) -> list[int]:
    """For each step asked for the last recorded one up to it, each once; none where there is none.

    >>> recorded_before([3, 26, 30, 999], [0, 25, 50])
    [25, 50]
    """
    steps = sorted({step for step in recorded if step > 0})
    places = {bisect_right(steps, step) for step in asked} - {0}
    return [steps[place - 1] for place in sorted(places)]


def laws_over_horizon(
    cells_at: Mapping[int, Sequence[Cell]], training: Training, *, target: Target = "alpha"
) -> list[Horizon]:
    """A horizon for each law that the cells have at any step.

    Args:
        cells_at: Step to the cells of the runs as they were there.
        training: How the runs were trained.
        target: As in ``fit_laws``.

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> def cells(p: float) -> list[Cell]:
    ...     return make_cells(
    ...         RunOutcome("lora", r, 2.0**k, 1, 1e-3, s, "finished", (k - 5 - p * j + s / 99) ** 2 + 9)
    ...         for j, r in enumerate((1, 2, 4, 8)) for k in range(3, 12) for s in range(3))
    >>> horizon, = laws_over_horizon({10: cells(0.0), 100: cells(1.0)}, Training("constant", 0, 100))
    >>> [round(abs(point.exponent), 1) for point in horizon.points], horizon.trend
    ([0.0, 1.0], 'rises')
    """
    if not cells_at:
        return []
    # Curves of so few ranks that no step can have a law are fitted once, for what they lack.
    last = max(cells_at)
    groups = curves_of(constant_alpha(cells_at[last]), target=target)
    able = {key for key, curves in groups.items() if len(curves) >= MIN_RANKS}
    found = {}
    for step, cells in sorted(cells_at.items()):
        own = [cell for cell in constant_alpha(cells) if cell.rank is not None and _key(cell, target) in able]
        found[step] = fit_laws(cells if step == last else own, target=target)
    by_key: dict[CurveKey, dict[int, Law]] = {}
    for step, laws in found.items():
        for law in laws:
            by_key.setdefault(law.key, {})[step] = law
    return [_horizon(key, laws, cells_at, training, target=target) for key, laws in sorted(by_key.items())]


def no_horizon_reasons(
    cells_at: Mapping[int, Sequence[Cell]], horizons: Sequence[Horizon], *, target: Target
) -> list[str]:
    """Why there is no horizon to speak of; empty if there is one."""
    if len(cells_at) < 2:
        count = "1 step is" if cells_at else "no step is"
        return [
            f"{count} recorded after the start so far: a horizon needs evaluations at 2 or more. "
            "eval_every says how often a run is evaluated"
        ]
    return [] if horizons else no_law_reasons(cells_at[max(cells_at)], [], target=target)


def _horizon(
    key: CurveKey,
    laws: Mapping[int, Law],
    cells_at: Mapping[int, Sequence[Cell]],
    training: Training,
    *,
    target: Target,
) -> Horizon:
    first = next(iter(laws.values()))
    points = []
    for step, cells in sorted(cells_at.items()):
        own = [cell for cell in constant_alpha(cells) if _key(cell, target) == key]
        points.append(_point(step, laws.get(step), own, training, target=target))
    readings = [
        _Reading(point.step, point.exponent, point.exponent_low, point.exponent_high)
        for point in points
        if point.exponent is not None
        and point.exponent_low is not None
        and point.exponent_high is not None
        and not point.warming
    ]
    change = _change(readings[0], readings[-1]) if len(readings) > 1 else (None, None, None)
    trend = _trend(*change)
    crossing = _crossing(readings) if target == "alpha" else None
    return Horizon(
        method=first.method,
        lr=first.lr,
        alpha=first.alpha,
        lr_ratio=first.lr_ratio,
        target=target,
        points=tuple(points),
        change=change[0],
        change_low=change[1],
        change_high=change[2],
        trend=trend,
        crosses_from=crossing[0] if crossing else None,
        crosses_to=crossing[1] if crossing else None,
        verdict=_verdict(points, readings, change, trend, crossing, first, training),
    )


def _key(cell: Cell, target: Target) -> CurveKey:
    return cell.method, cell.lr_ratio, cell.lr if target == "alpha" else (cell.alpha or 0.0)


def _point(
    step: int, law: Law | None, cells: Sequence[Cell], training: Training, *, target: Target
) -> HorizonPoint:
    fit = law.fit if law else None
    reasons = law.reasons if law else tuple(no_law_reasons(cells, [], target=target))
    return HorizonPoint(
        step=step,
        exponent=fit.exponent if fit else None,
        exponent_low=fit.exponent_low if fit else None,
        exponent_high=fit.exponent_high if fit else None,
        coefficient=fit.coefficient if fit else None,
        coefficient_low=fit.coefficient_low if fit else None,
        coefficient_high=fit.coefficient_high if fit else None,
        num_ranks=law.num_ranks if law else 0,
        num_censored=law.num_censored if law else 0,
        num_seeds=law.num_seeds if law else 0,
        num_diverged=sum(cell.num_diverged for cell in cells),
        num_pending=sum(cell.num_pending for cell in cells),
        decaying=training.decaying(step),
        warming=training.warming(step),
        reasons=reasons,
        verdict=law.verdict if law else "",
    )


def _change(first: _Reading, last: _Reading) -> tuple[float, float, float]:
    """The last p minus the first, with the interval that two independent ones would give.

    They are of the same runs, so their errors go together and the true interval is narrower.

    Source: Zou & Donner 2008, eq. 4 (an interval of a difference from the intervals of its terms).
    """
    change = last.p - first.p
    low = change - math.hypot(last.p - last.low, first.high - first.p)
    high = change + math.hypot(last.high - last.p, first.p - first.low)
    return change, low, high


def _trend(change: float | None, low: float | None, high: float | None) -> Trend | None:
    if change is None or low is None or high is None:
        return None
    if low > 0:
        return "rises"
    if high < 0:
        return "falls"
    return "flat" if max(-low, high) <= FLAT else "undecided"


def _crossing(readings: Sequence[_Reading]) -> tuple[int, int] | None:
    """The steps between which p first goes from one side of ½ to the other, its whole interval with it."""
    decided = [(reading, reading.low > 0.5) for reading in readings if not reading.low <= 0.5 <= reading.high]
    for (before, was_above), (after, is_above) in zip(decided, decided[1:], strict=False):
        if was_above != is_above:
            return before.step, after.step
    return None


def _verdict(
    points: Sequence[HorizonPoint],
    readings: Sequence[_Reading],
    change: tuple[float | None, float | None, float | None],
    trend: Trend | None,
    crossing: tuple[int, int] | None,
    law: Law,
    training: Training,
) -> str:
    fitted = [point for point in points if point.exponent is not None]
    if not fitted:
        return f"No law at any of {len(points)} steps; at step {points[-1].step}: " + "; ".join(
            points[-1].reasons
        )
    parts = [_of_p(fitted, readings, change, trend)]
    if law.target == "alpha" and readings:
        last = readings[-1]
        side = "inside" if last.low <= 0.5 <= last.high else "outside"
        parts.append(f"At step {last.step} {HALF} lies {side} the interval.")
    if crossing:
        parts.append(
            f"p passes ½ between steps {crossing[0]} and {crossing[1]}: √r is a crossing here, not a law of "
            "every horizon."
        )
    parts.append(_conditions(fitted[-1], law, training))
    return " ".join(parts)


def _of_p(
    fitted: Sequence[HorizonPoint],
    readings: Sequence[_Reading],
    change: tuple[float | None, float | None, float | None],
    trend: Trend | None,
) -> str:
    if trend is None:
        if len(fitted) == 1:
            return f"p = {fitted[0].exponent:.2f} at step {fitted[0].step}; no law at any other step."
        ends = " and ".join(f"{point.exponent:.2f} at step {point.step}" for point in (fitted[0], fitted[-1]))
        return f"p = {ends}; without two intervals after the warm-up nothing can be said of its change."
    ends = f"{readings[0]}, {readings[-1]}"
    by = f"{change[0]:+.2f} ({change[1]:+.2f} to {change[2]:+.2f})"
    return {
        "rises": f"p rises with training: {ends}; the change is {by}.",
        "falls": f"p falls with training: {ends}; the change is {by}.",
        "flat": f"p stays as it is within ±{FLAT:g}: {ends}; the change is {by}.",
        "undecided": f"Whether p changes is not decided: {ends}; the change is {by}.",
    }[trend]


def _conditions(last: HorizonPoint, law: Law, training: Training) -> str:
    fixed = f"η = {law.lr:g}" if law.target == "alpha" else f"α = {law.alpha:g}"
    ratio = "" if law.lr_ratio == 1 else f", η_B/η_A = {law.lr_ratio:g}"
    schedule = {None: "η's schedule unknown", "constant": "constant η"}.get(
        training.lr_schedule, f"{training.lr_schedule} η, read along runs of {training.steps} steps"
    )
    return (
        f"True of this sweep: {law.method}, {fixed}{ratio}, {last.num_ranks} ranks, {last.num_seeds} seeds, "
        f"{schedule}; of longer runs it says nothing."
    )
