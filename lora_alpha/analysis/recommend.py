"""Which α to train with, at a rank and a learning rate, on the evidence of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_alpha.analysis.cells import MIN_SEEDS, Cell
from lora_alpha.analysis.law import Law
from lora_alpha.errors import FitError
from lora_alpha.methods import LORA, METHODS, Method

Basis = Literal["measured", "interpolated", "extrapolated"]
# α*·η is roughly constant within a factor this far from a measured lr; beyond it we would be guessing.
MAX_LR_FACTOR = 10.0


@dataclass(frozen=True)
class Recommendation:
    """α for one rank and learning rate, and what it rests on.

    ``alpha_low``, ``alpha_high``: its 95 % interval; ``basin_low``, ``basin_high``: the α that are as good.
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


def recommend(
    laws: Sequence[Law], cells: Sequence[Cell], *, rank: int, lr: float | None = None
) -> Recommendation:
    """The best measured α at ``rank`` if it lies inside the grid, else the law's.

    Args:
        laws: Laws for target α.
        cells: Cells of the same sweep.
        rank: Rank to train with.
        lr: Learning rate to train with; the sweep's own unless given. At another lr the α of the nearest
            measured one is scaled so that α·η stays the same, with a warning.

    Raises:
        FitError: If nothing measured supports an answer; the message says what to run.
    """
    # The package of a method may be gone since its runs were trained.
    known = [law for law in laws if law.method in METHODS]
    usable = [law for law in known if law.target == "alpha" and METHODS[law.method].uses_rank]
    if not usable:
        if any(cell.measured for cell in cells):
            raise FitError("no rank has three values of α: an optimum needs at least three, extend the grid")
        raise FitError("no cell of this sweep has finished: wait for runs, then ask again")
    wanted = lr if lr is not None else usable[0].fixed
    law = min(usable, key=lambda item: (abs(math.log(item.fixed / wanted)), item.method != LORA.name))
    shift = law.fixed / wanted
    if not 1 / MAX_LR_FACTOR <= shift <= MAX_LR_FACTOR:
        raise FitError(
            f"lr {wanted:g} is more than {MAX_LR_FACTOR:g} times off the swept {law.fixed:g}: sweep it"
        )
    warnings = []
    if shift != 1:
        warnings.append(f"scaled from lr {law.fixed:g} by keeping α·η: sweep lr {wanted:g} to be sure")
    measured = next((o for o in law.optima if o.rank == rank and not o.censored), None)
    if measured is not None:
        basis: Basis = "measured"
        alpha, low, high = measured.value, measured.low, measured.high
    elif law.fit is not None:
        value, lower, upper = law.fit.predict([rank])
        alpha = float(value[0])
        low, high = (None if band is None else float(band[0]) for band in (lower, upper))
        ranks = [optimum.rank for optimum in law.optima]
        if law.fit.bends:
            warnings.append("the optima bend away from a power law: between ranks its line is off")
        basis = "interpolated" if min(ranks) <= rank <= max(ranks) else "extrapolated"
        if basis == "extrapolated":
            swept = f"{min(ranks)} to {max(ranks)}"
            warnings.append(f"rank {rank} is outside the swept {swept}: sweep it to be sure")
    else:
        raise FitError(f"no optimum at rank {rank} and no law: {'; '.join(law.reasons)}")
    if law.num_seeds < MIN_SEEDS:
        warnings.append(f"only {law.num_seeds} seeds: take at least {MIN_SEEDS}")
    supporting = tuple(
        cell
        for cell in cells
        if cell.method == law.method and cell.lr == law.fixed and (measured is None or cell.rank == rank)
    )
    alpha *= shift
    low, high = (None if value is None else value * shift for value in (low, high))
    info = METHODS[law.method]
    scale = info.scale(rank=rank, alpha=alpha)
    assert scale is not None
    return Recommendation(
        method=law.method,
        rank=rank,
        lr=wanted,
        alpha=alpha,
        scale=scale,
        alpha_low=low,
        alpha_high=high,
        basin_low=measured.basin_low * shift if measured else None,
        basin_high=measured.basin_high * shift if measured else None,
        basis=basis,
        expected_loss=measured.loss if measured else None,
        warnings=tuple(warnings),
        snippet=_snippet(info, rank, scale, wanted),
        num_supporting_runs=sum(cell.n for cell in supporting),
        supporting_cells=supporting,
    )


def _snippet(method: Method, rank: int, scale: float, lr: float) -> str:
    options = "".join(f", {name}={value}" for name, value in method.peft_config().items())
    alpha = _round(method.peft_alpha(scale, rank))
    return (
        f'LoraConfig(r={rank}, lora_alpha={alpha:g}{options}, target_modules="all-linear")\n'
        f"# learning_rate={lr:g}"
    )


def _round(value: float) -> float:
    """Two significant digits: a basin is octaves wide. Twelve first, to drop what a detour by s left."""
    return float(f"{float(f'{value:.12g}'):.2g}")
