"""Planted grids of α and η on which it is known whether one of the two routes is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.coverage.shapes import SHAPES
from benchmarks.coverage.worlds import OVER_IID, Noise, planted_run
from lora_alpha.analysis.cells import Cell, make_cells

BASE_ALPHA, BASE_LR = 8.0, 1e-5
Winner = Literal["", "alpha", "lr"]


@dataclass(frozen=True, kw_only=True)
class RouteWorld:
    """Loss depends on α·η alone, but for a planted gain of one route; lengths are octaves of α·η.

    Attributes:
        name: What it is called; the seeds of its replicates derive from it.
        ranks: Ranks; the optimum's α·η grows as √r.
        seeds: Seeds of each cell.
        distance: From the smallest α and η to the optimum of the smallest rank; up to one octave is added at
            random.
        alpha_spacing: Between neighbouring α.
        lr_spacing: Between neighbouring η.
        alpha_beyond: How far beyond the optimum the α grid goes at least; below 0 it ends short of it.
        lr_beyond: The same of η.
        shape: A name in ``SHAPES``.
        noise: What seeds do: ``normal``, or a level, tilt or shift per seed.
        rel: Standard deviation of one run divided by the mean rise one octave on either side.
        tilt: Deviation of a tilt (depths an octave), for the noise that tilts.
        shift: Deviation of a shift of the optimum, for the noise that shifts.
        cliff: Runs this far above their optimum diverge.
        missing: Share of runs that failed.
        gain: How much lower the winner's loss is from the optimum on, as a share of ``floor``.
        winner: The route that gains.
        floor: Loss at the minimum.
        depth: Mean rise one octave on either side.
    """

    name: str
    ranks: tuple[int, ...] = (4,)
    seeds: int = 3
    distance: float = 3.0
    alpha_spacing: float = 1.0
    lr_spacing: float = 1.0
    alpha_beyond: float = 2.0
    lr_beyond: float = 2.0
    shape: str = "parabola"
    noise: Noise = "normal"
    rel: float = 0.3
    tilt: float = 0.3
    shift: float = 0.15
    cliff: float = math.inf
    missing: float = 0.0
    gain: float = 0.0
    winner: Winner = ""
    floor: float = 0.5
    depth: float = 0.03

    @property
    def must_answer(self) -> bool:
        """Whether at most one replicate in ten may stay undecided."""
        inner = min(self.alpha_beyond, self.lr_beyond) > 0 and self.distance > 0
        return len(self.ranks) >= 3 and self.seeds >= 3 and inner and self.missing <= 0.1


def plant_routes(world: RouteWorld, rng: np.random.Generator) -> list[Cell]:
    """The cells of one sweep of ``world``: both routes at each rank."""
    start = world.distance + rng.uniform(0.0, 1.0)
    per_seed = rng.normal(size=world.seeds)
    shift = world.shift * per_seed if world.noise == "shift per seed" else np.zeros(world.seeds)
    tilt = world.tilt * per_seed if world.noise == "tilt per seed" else np.zeros(world.seeds)
    level = OVER_IID * world.rel * per_seed if world.noise == "level per seed" else np.zeros(world.seeds)
    curve = SHAPES[world.shape]
    runs = []
    for rank in world.ranks:
        optimum = start + 0.5 * math.log2(rank / world.ranks[0])
        for raised_alpha, raised_lr, route in _points(world, optimum):
            raised = raised_alpha + raised_lr
            z = raised - optimum
            gained = world.gain * world.floor * min(1.0, raised / optimum) if route == world.winner else 0.0
            rise = curve(z - shift) + tilt * z + level + world.rel * rng.normal(size=world.seeds)
            alpha = BASE_ALPHA * 2.0**raised_alpha
            for seed, loss in enumerate((world.floor - gained + world.depth * rise).tolist()):
                failed, diverged = bool(rng.random() < world.missing), z > world.cliff
                lr, gone = BASE_LR * 2.0**raised_lr, "failed" if failed else None
                runs.append(planted_run(rank, alpha, lr, seed, loss, gone=gone, diverged=diverged))
    return make_cells(runs)


def _points(world: RouteWorld, optimum: float) -> list[tuple[float, float, str]]:
    """(octaves of α, octaves of η, route) of every cell: the common start, then both routes."""
    points = [(0.0, 0.0, "")]
    points += [(up, 0.0, "alpha") for up in _steps(world.alpha_spacing, optimum, world.alpha_beyond)]
    return points + [(0.0, up, "lr") for up in _steps(world.lr_spacing, optimum, world.lr_beyond)]


def _steps(spacing: float, optimum: float, beyond: float) -> list[float]:
    """The route's cells after the start: past ``optimum + beyond``, or short of it where that is below 0."""
    reach = max((optimum + beyond) / spacing, 1.0)
    return [spacing * k for k in range(1, (math.floor(reach) if beyond < 0 else math.ceil(reach)) + 1)]
