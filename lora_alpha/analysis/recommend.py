"""Which α to train with, at a rank and a learning rate, on the evidence of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lora_alpha.analysis.cells import MIN_SEEDS, Cell
from lora_alpha.analysis.curves import CurveDraws
from lora_alpha.analysis.law import Law, LawDraws, fit_laws_and_draws, nothing_measured
from lora_alpha.analysis.lr_transfer import LRTransfer, lr_transfer
from lora_alpha.analysis.optimum import Optimum
from lora_alpha.analysis.rules import RULES, RuleCost, alpha_costs
from lora_alpha.analysis.written import outward, written_alpha
from lora_alpha.analysis.yardstick import yardstick
from lora_alpha.errors import FitError
from lora_alpha.methods import LORA, METHODS
from lora_alpha.snippets import Recipe, write_snippets

Basis = Literal["measured", "interpolated", "extrapolated"]
MAX_LR_FACTOR = 10.0  # beyond this factor from a swept lr we would be guessing
RECOMMENDED = "recommended"


@dataclass(frozen=True)
class Recommendation:
    """α for one rank and learning rate, and what it rests on.

    ``alpha`` is the number that is recommended, as a person would write it; ``scale``, ``expected_loss``,
    ``regrets`` and every snippet are computed from it, and ranges are rounded outwards to its digits. What
    it was rounded from is ``alpha_estimate``.

    Attributes:
        alpha_low: Lower end of the 95 % interval of the best α.
        alpha_high: Upper end.
        basin_low: Smallest α that is as good.
        basin_high: Largest such α.
        expected_loss: Loss at ``alpha`` of a swept rank and learning rate: measured there, else by a parabola
            through the nearest cells.
        snippet: PEFT's; the same as in ``snippets``.
        alpha_estimate: The best α, unrounded.
        kappa: Exponent of α* in η by which another learning rate is reached; −1 keeps α·η.
        kappa_low: Lower end of its 95 % interval.
        kappa_high: Upper end.
        kappa_num_lrs: Learning rates that κ was estimated from; 0 where it is assumed.
        regrets: What ``alpha`` and the common rules cost at this rank and learning rate.
        snippets: Trainer → its configuration, or a comment that says why it cannot train this.
    """

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
    warnings: tuple[str, ...]
    snippet: str
    num_supporting_runs: int
    supporting_cells: tuple[Cell, ...]
    alpha_estimate: float
    kappa: float
    kappa_low: float
    kappa_high: float
    kappa_num_lrs: int = 0
    regrets: tuple[RuleCost, ...] = ()
    snippets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Estimate:
    """The best α in log₂, ends of its interval and of its basin, and whence it is."""

    value: float
    low: float | None
    high: float | None
    basis: Basis
    basin_low: float | None = None
    basin_high: float | None = None
    warnings: tuple[str, ...] = ()


def recommend(
    laws: Sequence[Law],
    cells: Sequence[Cell],
    *,
    rank: int,
    lr: float | None = None,
    recipe: Recipe | None = None,
    draws: LawDraws | None = None,
) -> Recommendation:
    """The best measured α at ``rank`` if it lies inside the grid, else the law's.

    Args:
        laws: Laws for target α.
        cells: Cells of the same sweep.
        rank: Rank to train with.
        lr: Learning rate to train with; the sweep's own unless given. At another lr the α of the nearest
            swept one is moved by α* ∝ η^κ, within a factor of ten.
        recipe: What else the sweep trained, for the snippets.
        draws: Those of ``fit_laws_and_draws``; without them the curves are fitted again.

    Raises:
        FitError: If nothing measured supports an answer; the message says what to run.
    """
    law, wanted = _nearest_law(laws, cells, lr)
    method = METHODS[law.method]
    optimum = next((o for o in law.optima if o.rank == rank), None)
    located = optimum is not None and optimum.low is not None
    swept = _of_rank(optimum) if optimum is not None and located else _of_law(law, rank, optimum)
    beside = [one for one in laws if (one.method, one.lr_ratio) == (law.method, law.lr_ratio)]
    transfer = lr_transfer([one for one in beside if one.target == "alpha"])
    is_swept = math.isclose(wanted, law.fixed, rel_tol=1e-9)
    found = swept if is_swept else _moved(swept, transfer, law, wanted, beside)
    few = (f"only {law.num_seeds} seeds: take at least {MIN_SEEDS}",) if law.num_seeds < MIN_SEEDS else ()
    curve = [
        cell
        for cell in cells
        if (cell.method, cell.lr_ratio, cell.lr) == (law.method, law.lr_ratio, law.fixed)
    ]
    here = [cell for cell in curve if cell.rank == rank and is_swept]
    alpha = _written(found, here)
    scale = method.scale(rank=rank, alpha=alpha)
    assert scale is not None
    low, high = _shown(found.low, found.high, alpha)
    basin_low, basin_high = _shown(found.basin_low, found.basin_high, alpha)
    snippets = write_snippets(
        method, rank=rank, scale=scale, lr=wanted, lr_ratio=law.lr_ratio, recipe=recipe or Recipe()
    )
    drawn = (draws if draws is not None else fit_laws_and_draws(curve)[1]).get(law.key, {}) if here else {}
    supporting = [cell for cell in curve if swept.basis != "measured" or cell.rank == rank]
    kappa_low, kappa_high = transfer.interval
    return Recommendation(
        method=law.method,
        rank=rank,
        lr=wanted,
        alpha=alpha,
        scale=scale,
        alpha_low=low,
        alpha_high=high,
        basin_low=basin_low,
        basin_high=basin_high,
        basis=found.basis,
        expected_loss=_loss_at(alpha, here),
        warnings=(*found.warnings, *few),
        snippet=snippets["peft"],
        num_supporting_runs=sum(cell.n for cell in supporting),
        supporting_cells=tuple(supporting),
        alpha_estimate=2.0**found.value,
        kappa=transfer.kappa,
        kappa_low=kappa_low,
        kappa_high=kappa_high,
        kappa_num_lrs=transfer.num_lrs,
        regrets=_regrets(alpha, rank, here, drawn, cells),
        snippets=snippets,
    )


def _nearest_law(laws: Sequence[Law], cells: Sequence[Cell], lr: float | None) -> tuple[Law, float]:
    """The law of the swept learning rate nearest to ``lr``, and the learning rate that is asked for."""
    # The package of a method may be gone since its runs were trained.
    known = [law for law in laws if law.method in METHODS]
    usable = [law for law in known if law.target == "alpha" and METHODS[law.method].uses_rank]
    if not usable:
        if any(cell.measured for cell in cells):
            raise FitError("no rank has three values of α: an optimum needs at least three, extend the grid")
        waiting = not cells or any(cell.num_pending for cell in cells)
        raise FitError(nothing_measured(cells) + (": wait for runs, then ask again" if waiting else ""))
    wanted = lr if lr is not None else usable[0].fixed
    law = min(usable, key=lambda item: (abs(math.log(item.fixed / wanted)), item.method != LORA.name))
    if not 1 / MAX_LR_FACTOR <= law.fixed / wanted <= MAX_LR_FACTOR:
        raise FitError(
            f"lr {wanted:g} is more than {MAX_LR_FACTOR:g} times off the swept {law.fixed:g}: sweep it"
        )
    return law, wanted


def _of_rank(optimum: Optimum) -> _Estimate:
    value, low, high = math.log2(optimum.value), _log2(optimum.low), _log2(optimum.high)
    basin = math.log2(optimum.basin_low), math.log2(optimum.basin_high)
    warnings = (f"at rank {optimum.rank} {_bound(optimum)}",) if optimum.censored == "cliff" else ()
    return _Estimate(value, low, high, "measured", *basin, warnings)


def _of_law(law: Law, rank: int, censored: Optimum | None) -> _Estimate:
    """What the law says of a rank that has no optimum inside the grid."""
    bound = "" if censored is None else f"at rank {rank} {_bound(censored)}"
    if law.fit is None:
        raise FitError(
            f"no optimum at rank {rank} and no law: {'; '.join(filter(None, (bound, *law.reasons)))}"
        )
    warnings = [f"{bound}: this is the law's, from the other ranks"] if bound else []
    ranks = [optimum.rank for optimum in law.optima]
    inside = min(ranks) <= rank <= max(ranks)
    if not inside:
        swept = f"{min(ranks)} to {max(ranks)}"
        warnings.append(f"rank {rank} is outside the swept {swept}: sweep it to be sure")
    value, low, high = (float(band[0]) for band in law.fit.predict([rank]))
    basis: Basis = "interpolated" if inside else "extrapolated"
    return _Estimate(math.log2(value), _log2(low), _log2(high), basis, warnings=tuple(warnings))


def _bound(optimum: Optimum) -> str:
    """What a censored optimum is known to be."""
    if optimum.censored == "low_edge":
        return f"the best α is at most {optimum.bound_high:g}, where the grid ends"
    if optimum.censored == "high_edge":
        return f"the best α is at least {optimum.bound_low:g}, where the grid ends"
    low = "below" if optimum.bound_low is None else f"between {optimum.bound_low:g} and"
    return f"the best α is {low} {optimum.bound_high or optimum.value:g}, where runs diverge"


def _moved(
    swept: _Estimate, transfer: LRTransfer, law: Law, wanted: float, beside: Sequence[Law]
) -> _Estimate:
    """The estimate at another learning rate; its interval holds what κ is not known by as well."""
    value, low, high = transfer.shift(math.log2(wanted / law.fixed))
    kappa_low, kappa_high = transfer.interval
    if transfer.estimated:
        text = (
            f"lr {wanted:g} was not swept: moved from lr {law.fixed:g} by α* ∝ η^{transfer.kappa:.2f} "
            f"(95 %: {kappa_low:.2f} to {kappa_high:.2f}), estimated from {transfer.num_lrs} learning rates"
        )
    else:
        text = (
            f"scaled from lr {law.fixed:g} by keeping α·η, which other workloads keep to within "
            f"η^{kappa_low:.1f} to η^{kappa_high:.1f}, as the interval says: sweep lr {wanted:g} to be sure"
        )
    warnings = [text]
    lrs = [one.fixed for one in beside]
    outside = not min(lrs) <= wanted <= max(lrs)
    if outside and transfer.estimated:
        warnings.append(
            f"lr {wanted:g} is outside the swept {min(lrs):g} to {max(lrs):g}: sweep it to be sure"
        )
    basis: Basis = "extrapolated" if outside else "interpolated"
    centre = swept.value + value
    return _Estimate(
        centre,
        None if swept.low is None else centre - math.hypot(swept.value - swept.low, value - low),
        None if swept.high is None else centre + math.hypot(swept.high - swept.value, high - value),
        basis if swept.basis == "measured" else swept.basis,
        None if swept.basin_low is None else swept.basin_low + value,
        None if swept.basin_high is None else swept.basin_high + value,
        (*warnings, *swept.warnings),
    )


def _written(found: _Estimate, here: Sequence[Cell]) -> float:
    """The α that is recommended: inside its interval and its basin."""
    lows = [end for end in (found.low, found.basin_low) if end is not None]
    highs = [end for end in (found.high, found.basin_high) if end is not None]
    return written_alpha(
        2.0**found.value,
        low=2.0 ** max(lows, default=-math.inf),
        high=2.0 ** min(highs, default=math.inf),
        trained=[cell.alpha for cell in here if cell.alpha is not None and cell.measured],
    )


def _shown(low: float | None, high: float | None, alpha: float) -> tuple[float | None, float | None]:
    if low is None or high is None:
        return None, None
    return outward(2.0**low, 2.0**high, alpha=alpha)


def _loss_at(alpha: float, curve: Sequence[Cell]) -> float | None:
    """The loss at ``alpha`` by the parabola through the three cells nearest to it in log₂ α."""
    points = [
        (math.log2(cell.alpha / alpha), cell.mean)
        for cell in curve
        if cell.measured and cell.alpha is not None and cell.mean is not None
    ]
    points = sorted(points, key=lambda point: abs(point[0]))[:3]
    if len(points) < 3:
        return None
    # Lagrange's form, at 0.
    (a, _), (b, _), (c, _) = points
    weights = (b * c / ((a - b) * (a - c)), a * c / ((b - a) * (b - c)), a * b / ((c - a) * (c - b)))
    return sum(weight * mean for weight, (_, mean) in zip(weights, points, strict=True))


def _regrets(
    alpha: float,
    rank: int,
    curve: Sequence[Cell],
    draws: Mapping[int, CurveDraws | None],
    cells: Sequence[Cell],
) -> tuple[RuleCost, ...]:
    alphas = {RECOMMENDED: alpha, **{rule.name: rule.alpha(rank) for rule in RULES}}
    return tuple(alpha_costs(alphas, rank, curve, draws.get(rank), yardstick(cells)))


def _log2(value: float | None) -> float | None:
    return None if value is None else math.log2(value)
