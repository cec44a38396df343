"""Planted sweeps whose law, optima and basins are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage.shapes import SHAPES, Array, basin
from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.optimum import BASIN

Flags = NDArray[np.bool_]

LR = 2e-4
MARGIN_OCTAVES = 3.0  # the grid goes on by this much beyond the outermost optima, half a step more or less
UNEVEN = (0.5, 1.0, 1.5)  # shares of the spacing that steps of an uneven grid have in turn
MEMORY = 0.6  # correlation of a curve's noise over one octave
OVER_IID = 3.0  # deviation of a seed's level, in deviations of a run

Noise = Literal[
    "normal",
    "heavy tails",
    "proportional to loss",
    "growing with distance",
    "correlated along α",
    "level per seed",
    "tilt per seed",
    "tilt per curve",
    "shift per seed",
    "shift per curve",
]
Missing = Literal["failed", "pending", "seed at half of the ranks", "pending tail"]


@dataclass(frozen=True, kw_only=True)
class World:
    """One kind of planted sweep; lengths are octaves of α.

    Attributes:
        name: What it is called; the seeds of its replicates derive from it.
        ranks: Ranks, ascending.
        spacing: Octaves between neighbouring α; the grid's offset is drawn anew in each replicate.
        uneven: Steps of the grid are ½, 1 and 1½ spacings in turn.
        seeds: Seeds of each cell.
        shape: A name in ``SHAPES``.
        noise: What differs between runs of a cell.
        rel: Standard deviation of one run divided by the mean rise one octave on either side of α*. Where
            seeds tilt or shift, their own runs scatter by this as well.
        exponent: p of the law.
        log2_coefficient: log₂ C.
        scatter: Deviation of the optima about the law.
        bend: Quadratic term of the law in log₂ r, about the middle rank. A bent law has no p and no C.
        tilt: Deviation of a tilt (depths an octave), for the noises that tilt.
        shift: Deviation of a shift of the optimum, for the noises that shift.
        curvature_growth: Rise at the largest rank divided by that at the smallest.
        width_growth: Width of the basin at the largest rank divided by that at the smallest.
        cliff: Runs this far above their optimum diverge.
        cliff_scatter: Deviation of where a curve's own cliff lies.
        edges_high: The optima of so many of the largest ranks lie beyond the grid.
        edges_low: The optima of so many of the smallest ranks lie beyond it.
        missing: Share of runs that have no loss.
        missing_runs: Runs without a loss, where it is a number of them.
        missing_kind: Which these are, and what became of them.
        floor: Loss at the minimum.
        depth: Mean rise one octave on either side of α*.
    """

    name: str
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    spacing: float = 1.0
    uneven: bool = False
    seeds: int = 3
    shape: str = "parabola"
    noise: Noise = "normal"
    rel: float = 0.3
    exponent: float = 0.5
    log2_coefficient: float = 7.0
    scatter: float = 0.0
    bend: float = 0.0
    tilt: float = 0.3
    shift: float = 0.15
    curvature_growth: float = 1.0
    width_growth: float = 1.0
    cliff: float = math.inf
    cliff_scatter: float = 0.0
    edges_high: int = 0
    edges_low: int = 0
    missing: float = 0.0
    missing_runs: int = 0
    missing_kind: Missing = "failed"
    floor: float = 0.5
    depth: float = 0.03

    @property
    def must_answer(self) -> bool:
        """Whether at most one replicate in ten may lack an interval."""
        whole = self.missing <= 0.1 and self.missing_kind != "seed at half of the ranks"
        return len(self.ranks) >= 3 and self.seeds >= 3 and not (self.edges_high or self.edges_low) and whole


@dataclass(frozen=True)
class Place:
    """The truth at one rank, in log₂ α: the optimum and the ends of its basin.

    ``inside``: the optimum lies within the grid. An end that lies beyond the grid or a cliff, or nowhere, is
    None: no sweep could measure it.
    """

    optimum: float
    inside: bool
    basin_low: float | None
    basin_high: float | None


@dataclass(frozen=True)
class Truth:
    """What a planted sweep's analysis should find: p and log₂ C (None for a bent law), a place each rank.

    Where seeds shift the optimum, α* is the minimum of the loss that is expected over seeds, not the mean of
    the seeds' minima: whoever trains once more, with a seed of their own, loses least there. The two differ
    in basins with unequal sides. C is that of these minima.
    """

    exponent: float | None
    log2_coefficient: float | None
    places: dict[int, Place]


def plant(world: World, rng: np.random.Generator) -> tuple[list[Cell], Truth]:
    """The cells of one sweep of ``world``, and the truth about it."""
    log_rank = np.log2(world.ranks)
    centres = world.log2_coefficient + world.exponent * log_rank
    centres += world.bend * (log_rank - log_rank.mean()) ** 2
    centres += rng.normal(0.0, world.scatter, len(centres))
    x = _grid(world, centres, rng)
    losses, diverged = _losses(world, x, centres, rng)
    missing = _missing(world, losses.shape, rng)
    return _cells(world, x, losses, diverged, missing), _truth(world, x, centres)


def _grid(world: World, centres: Array, rng: np.random.Generator) -> Array:
    """log₂ α of the grid, at a random offset."""
    low, high = float(centres.min()) - MARGIN_OCTAVES, float(centres.max()) + MARGIN_OCTAVES
    rising = np.sort(centres)
    if world.edges_high:
        high = float(rng.uniform(*rising[-world.edges_high - 1 :][:2]))
    if world.edges_low:
        low = float(rng.uniform(*rising[world.edges_low - 1 :][:2]))
    steps: Array = np.array(UNEVEN if world.uneven else (1.0,)) * world.spacing
    number = math.ceil((high - low) / float(steps.mean())) + 1
    walk: Array = np.concatenate([[0.0], np.cumsum(np.resize(steps, number - 1))])
    end = float(walk[-1])
    if world.edges_high:
        return walk + (high - end)
    if world.edges_low:
        return walk + low
    return walk + ((low + high - end) / 2.0 + float(rng.uniform(-0.5, 0.5)) * world.spacing)


def _losses(world: World, x: Array, centres: Array, rng: np.random.Generator) -> tuple[Array, Flags]:
    """Losses and divergences, each (ranks, seeds, α)."""
    num_ranks, num_seeds = len(centres), world.seeds
    share = np.linspace(-0.5, 0.5, num_ranks)[:, None, None]
    depth, width = world.depth * world.curvature_growth**share, world.width_growth**share
    z = (x - centres[:, None])[:, None, :]
    per_seed, per_curve = rng.normal(size=(1, num_seeds, 1)), rng.normal(size=(num_ranks, num_seeds, 1))
    own = per_curve if world.noise.endswith("per curve") else per_seed
    shift = world.shift * own if world.noise.startswith("shift") else 0.0
    loss = world.floor + depth * SHAPES[world.shape]((z - shift) / width)
    if world.noise.startswith("tilt"):
        loss = loss + world.depth * world.tilt * own * z
    if world.noise == "level per seed":
        loss = loss + OVER_IID * world.rel * world.depth * own
    loss = loss + world.rel * world.depth * _run_noise(world, x, z, loss, rng)
    shape = (num_ranks, num_seeds, 1)
    brink = world.cliff + (rng.normal(0.0, world.cliff_scatter, shape) if world.cliff_scatter else 0.0)
    return loss, np.broadcast_to(z > brink, loss.shape)


def _run_noise(world: World, x: Array, z: Array, loss: Array, rng: np.random.Generator) -> Array:
    """Noise of single runs, of deviation 1 at the optimum or, where it grows, one octave from it."""
    size = (len(world.ranks), world.seeds, len(x))
    if world.noise == "heavy tails":
        return rng.standard_t(3, size) / math.sqrt(3.0)
    noise: Array = rng.normal(size=size)
    if world.noise == "proportional to loss":
        return noise * loss / world.floor
    if world.noise == "growing with distance":
        return noise * (0.5 + 0.5 * np.abs(z))
    if world.noise == "correlated along α":
        for index, kept in enumerate(MEMORY ** np.diff(x), start=1):
            noise[..., index] = kept * noise[..., index - 1] + math.sqrt(1 - kept**2) * noise[..., index]
    return noise


def _missing(world: World, size: tuple[int, ...], rng: np.random.Generator) -> Flags:
    """Which runs have no loss, (ranks, seeds, α)."""
    gone = np.zeros(size, dtype=bool)
    if world.missing_kind == "seed at half of the ranks":
        gone[rng.permutation(size[0])[: size[0] // 2], -1] = True
        return gone
    number = world.missing_runs or round(world.missing * gone.size)
    if world.missing_kind == "pending tail":  # the last seed has come to the largest ranks last
        tail = np.arange(gone.size) >= gone.size - number
        return tail.reshape(size[1], size[0], size[2]).swapaxes(0, 1)
    gone.reshape(-1)[rng.permutation(gone.size)[:number]] = True
    return gone


def _cells(
    world: World,
    x: Array,
    losses: Array,
    diverged: Flags,
    missing: Flags,
) -> list[Cell]:
    status: Literal["failed", "pending"] = "pending" if world.missing_kind.startswith("pending") else "failed"
    runs = []
    for i, rank in enumerate(world.ranks):
        for k, position in enumerate(x.tolist()):
            alpha = 2.0**position
            for seed in range(world.seeds):
                gone, lost = bool(missing[i, seed, k]), bool(diverged[i, seed, k])
                loss, state = float(losses[i, seed, k]), status if gone else None
                runs.append(planted_run(rank, alpha, LR, seed, loss, gone=state, diverged=lost))
    return make_cells(runs)


def planted_run(
    rank: int,
    alpha: float,
    lr: float,
    seed: int,
    loss: float,
    *,
    gone: Literal["failed", "pending"] | None,
    diverged: bool,
) -> RunOutcome:
    """One run of a planted sweep; a run that is ``gone`` says nothing, a diverged one has no loss."""
    return RunOutcome(
        "lora",
        rank,
        alpha,
        alpha / rank,
        lr,
        seed,
        gone or "finished",
        None if gone or diverged else loss,
        diverged and not gone,
    )


def _truth(world: World, x: Array, centres: Array) -> Truth:
    shift = world.shift if world.noise.startswith("shift") else 0.0
    places, moved = {}, []
    for share, rank, centre in zip(np.linspace(-0.5, 0.5, len(centres)), world.ranks, centres, strict=True):
        found = basin(
            world.shape,
            width=world.width_growth**share,
            shift=shift,
            depth=world.depth * world.curvature_growth**share,
            floor=world.floor,
            tolerance=BASIN,
        )
        top = min(x[-1], centre + world.cliff)
        low, high = (None if end is None else float(centre) + end for end in (found.low, found.high))
        moved.append(found.optimum)
        optimum = float(centre) + found.optimum
        places[rank] = Place(
            optimum=optimum,
            inside=bool(x[0] <= optimum <= top),
            basin_low=low if low is not None and x[0] <= low else None,
            basin_high=high if high is not None and high <= top else None,
        )
    if world.bend:
        return Truth(None, None, places)
    slope, level = np.polyfit(np.log2(world.ranks), moved, 1)
    return Truth(world.exponent + float(slope), world.log2_coefficient + float(level), places)
