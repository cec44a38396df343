"""The runs that a coordinate has to explain, and how much of their spread is noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.curve_basis import Array

Index = NDArray[np.int64]
SAME = 1e-9  # differences below this share of the cost are rounding
FENCE = 3.0  # interquartile ranges above the upper quartile: Tukey's "far out" (1977)


@dataclass(frozen=True)
class Runs:
    """The runs of the measured cells, lower is better.

    Attributes:
        logs: (n, 3) log2 of α, η and rank of each cell.
        costs: (n, S) a column for each seed, NaN where it is missing. What a seed adds to all cells of a rank
            is taken out, so that a cell that lacks a seed is neither better nor worse for it. Costs far
            above the others (a cliff) are lowered to a common ceiling, which no coordinate is harmed by.
        rank_index: (n,) which rank.
        cluster: (n,) which curve (rank, η) the cell is left out with.
        noise: Variance of one run's cost about its cell and seed; None with one seed.
        noise_freedom: Degrees of freedom of ``noise``.
    """

    logs: Array
    costs: Array
    rank_index: Index
    cluster: Index
    noise: float | None
    noise_freedom: int

    @cached_property
    def weights(self) -> Array:
        """(n,) number of runs of each cell."""
        return np.asarray((~np.isnan(self.costs)).sum(1), float)

    @cached_property
    def means(self) -> Array:
        """(n,) mean cost of each cell."""
        return np.asarray(np.nanmean(self.costs, axis=1))

    @cached_property
    def pure(self) -> float:
        """Sum of squares of the runs about their cells, which no coordinate can explain."""
        return float(np.nansum((self.costs - self.means[:, None]) ** 2))

    @cached_property
    def num_ranks(self) -> int:
        """Number of floors."""
        return int(self.rank_index.max()) + 1

    @property
    def num_clusters(self) -> int:
        """Number of curves."""
        return int(self.cluster.max()) + 1

    @cached_property
    def variance(self) -> float:
        """Variance of a run's cost between the cells of a rank; what a coordinate has to explain."""
        weights, means = self.weights, self.means
        sums = np.bincount(self.rank_index, weights * means) / np.bincount(self.rank_index, weights)
        squares = float((weights * (means - sums[self.rank_index]) ** 2).sum())
        return squares / max(len(means) - self.num_ranks, 1)

    @property
    def ceiling(self) -> float | None:
        """The share of ``variance`` that is not noise of seeds; None with one seed."""
        if self.noise is None or self.variance <= 0:
            return None
        return max(1 - self.noise / self.variance, 0.0)

    @property
    def only_noise(self) -> bool:
        """Whether cells of a rank differ no more than seeds do (F test, 5 %), or not at all."""
        from scipy.special import fdtri

        spread = float(np.abs(self.means).max()) * SAME
        if self.variance <= spread**2:
            return True
        if not self.noise:
            return False
        freedom = len(self.means) - self.num_ranks
        return bool(self.variance / self.noise < fdtri(freedom, self.noise_freedom, 0.95))

    def seed_noise(self, gradient: Array) -> SeedNoise:
        """Variance that seeds give to a sum over cells of ``gradient`` times the cell's mean."""
        num_seeds = self.costs.shape[1]
        if num_seeds < 2:
            return SeedNoise(0.0, 0.0)
        away = np.nan_to_num(self.costs - self.means[:, None]) * (gradient / self.weights)[:, None]
        by_curve = np.zeros((self.num_clusters, num_seeds))
        np.add.at(by_curve, self.cluster, away)
        single = float((by_curve**2).sum()) * num_seeds / (num_seeds - 1)
        whole = float((by_curve.sum(0) ** 2).sum()) * num_seeds / (num_seeds - 1)
        return SeedNoise(single, max(whole - single, 0.0))


@dataclass(frozen=True)
class SeedNoise:
    """Variance of a sum over cells: by what seeds do to single curves, and beyond it to all alike."""

    single: float
    common: float


def gather_runs(cells: Sequence[Cell]) -> Runs:
    """The runs of ``cells``, all of them measured, with rank and α."""
    seeds = sorted({seed for cell in cells for seed in cell.losses})
    costs = np.array([[cell.costs.get(seed, math.nan) for seed in seeds] for cell in cells])
    logs = np.log2(np.array([[cell.alpha or 1, cell.lr, cell.rank or 1] for cell in cells], float))
    rank_index = np.unique(logs[:, 2], return_inverse=True)[1]
    cluster = np.unique(logs[:, 1:].round(9), axis=0, return_inverse=True)[1].ravel()
    costs, noise, freedom = _without_seed_effects(_fenced(costs, rank_index), rank_index)
    return Runs(logs, costs, rank_index, cluster, noise, freedom)


def _fenced(costs: Array, rank_index: Index) -> Array:
    means = np.nanmean(costs, axis=1)
    middle = np.array([np.median(means[rank_index == rank]) for rank in range(rank_index.max() + 1)])
    low, high = np.quantile(means - middle[rank_index], [0.25, 0.75])
    fence = middle[rank_index] + high + FENCE * (high - low)
    return np.asarray(np.minimum(costs, fence[:, None]))


def _without_seed_effects(costs: Array, rank_index: Index) -> tuple[Array, float | None, int]:
    adjusted, squares, freedom = costs.copy(), 0.0, 0
    for rank in range(int(rank_index.max()) + 1):
        mine = rank_index == rank
        y = costs[mine]
        there = ~np.isnan(y)
        share = there / there.sum(1, keepdims=True)
        # A run's deviation from its cell's mean is its seed's effect less the mean effect of the cell.
        cell, seed = np.nonzero(there)
        design = np.eye(y.shape[1])[seed] - share[cell]
        deviation = (y - np.nanmean(y, 1, keepdims=True))[there]
        effect, _, rank_of, _ = np.linalg.lstsq(design, deviation, rcond=1e-9)
        squares += float(((deviation - design @ effect) ** 2).sum())
        freedom += int(there.sum()) - int(mine.sum()) - int(rank_of)
        adjusted[mine] = y - effect
    return adjusted, squares / freedom if freedom > 0 else None, freedom
