"""What the analysis says of one planted sweep, beside the truth: through public records alone.

A reading is what a line of a world's file holds. The quantities of a law are lists of (truth, estimate, low,
high), None where the analysis gives none; α, C and the ends of basins are in octaves.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from benchmarks.coverage.routes import RouteWorld, plant_routes
from benchmarks.coverage.worlds import Place, Truth, World, plant
from lora_alpha.analysis.equivalence import compare_routes
from lora_alpha.analysis.law import Law, fit_laws
from lora_alpha.analysis.optimum import Optimum
from lora_alpha.analysis.overall import overall_verdict

Reading = dict[str, Any]
Four = list[float | None]


def read(world: World | RouteWorld, replicate: int) -> Reading:
    """Plant one sweep and read it; a fault of the analysis is a reading too, with its ``error``."""
    digest = hashlib.sha256(f"{world.name}/{replicate}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    reading: Reading = {"replicate": replicate}
    try:
        found = _read_surface(world, rng) if isinstance(world, World) else _read_routes(world, rng)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    return reading | found


def _read_surface(world: World, rng: np.random.Generator) -> Reading:
    """Law, and optimum and basin of one rank that is drawn: trials of one world are then independent.

    ``optima`` sums over all ranks whose optimum lies inside the grid: how many, given, covered, and squared
    errors; ``bounds`` counts ranges of censored optima and those that hold the truth.
    """
    cells, truth = plant(world, rng)
    inside = [rank for rank, place in truth.places.items() if place.inside]
    drawn, high_end = int(rng.choice(inside)), bool(rng.random() < 0.5)
    laws = fit_laws(cells)
    law = laws[0] if laws else None
    optima = {optimum.rank: optimum for optimum in law.optima} if law else {}
    place, optimum = truth.places[drawn], optima.get(drawn)
    basin = _basin(place, optimum, high=high_end) or _basin(place, optimum, high=not high_end)
    fours = [_alpha(truth.places[rank], optima.get(rank)) for rank in inside]
    return {
        **_law(truth, law),
        "alpha": _alpha(place, optimum),
        "basin": basin,
        "optima": [
            len(fours),
            sum(given(four) for four in fours),
            sum(covered(four) for four in fours),
            sum((four[1] - four[0]) ** 2 for four in fours if four[0] is not None and four[1] is not None),
        ],
        "bounds": _bounds(truth, optima),
        "bends": None if law is None or law.fit is None else law.fit.bends,
    }


def _law(truth: Truth, law: Law | None) -> dict[str, Four | None]:
    if truth.exponent is None:
        return {"p": None, "C": None}
    fit = law.fit if law else None
    if fit is None:
        return {"p": [truth.exponent, None, None, None], "C": [truth.log2_coefficient, None, None, None]}
    return {
        "p": [truth.exponent, fit.exponent, fit.exponent_low, fit.exponent_high],
        "C": [
            truth.log2_coefficient,
            _log2(fit.coefficient),
            _log2(fit.coefficient_low),
            _log2(fit.coefficient_high),
        ],
    }


def _alpha(place: Place, optimum: Optimum | None) -> Four:
    if optimum is None:
        return [place.optimum, None, None, None]
    return [place.optimum, _log2(optimum.value), _log2(optimum.low), _log2(optimum.high)]


def _basin(place: Place, optimum: Optimum | None, *, high: bool) -> Four | None:
    """One end of a basin; None where the sweep could not measure it."""
    truth = place.basin_high if high else place.basin_low
    if truth is None:
        return None
    if optimum is None:
        return [truth, None, None, None]
    value, low, high_ = basin_end(optimum, high=high)
    return [truth, _log2(value), _log2(low), _log2(high_)]


def basin_end(optimum: Optimum, *, high: bool) -> tuple[float, float | None, float | None]:
    """An end of a basin and its interval; an analysis without one gives None."""
    end = "basin_high" if high else "basin_low"
    return getattr(optimum, end), getattr(optimum, f"{end}_from", None), getattr(optimum, f"{end}_to", None)


def _bounds(truth: Truth, optima: dict[int, Optimum]) -> list[int]:
    censored = [optimum for optimum in optima.values() if optimum.censored]
    held = sum(
        (optimum.bound_low or 0.0)
        <= 2.0 ** truth.places[optimum.rank].optimum
        <= (optimum.bound_high or math.inf)
        for optimum in censored
    )
    return [len(censored), held]


def _read_routes(world: RouteWorld, rng: np.random.Generator) -> Reading:
    """The verdict on one rank that is drawn, and on all of them."""
    cells = plant_routes(world, rng)
    drawn = int(rng.choice(world.ranks))
    items = compare_routes(cells)
    return {
        "verdict": next((item.verdict for item in items if item.rank == drawn), "not_enough_data"),
        "overall": overall_verdict(items)[0],
    }


def given(four: Four) -> bool:
    """Whether there is an interval with both ends."""
    return four[2] is not None and four[3] is not None


def covered(four: Four) -> bool:
    """Whether the interval is there and holds the truth."""
    truth, _, low, high = four
    return truth is not None and low is not None and high is not None and low <= truth <= high


def _log2(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) or value <= 0 else math.log2(value)
