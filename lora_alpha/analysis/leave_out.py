"""Least squares with and without some of the runs, and the intervals that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.collapse_runs import Runs
from lora_alpha.analysis.curve_basis import Array


@dataclass(frozen=True)
class Sums:
    """What a least-squares fit needs of some runs; any leading axes.

    Attributes:
        gram: (..., k, k) products of the design's columns, summed over runs.
        cross: (..., k) products of the columns with the cost.
        count: (...) number of runs.
    """

    gram: Array
    cross: Array
    count: Array

    def over(self, *axes: int) -> Sums:
        """Added up over leading axes."""
        return Sums(
            self.gram.sum(axes),
            self.cross.sum(axes),
            np.asarray(self.count.sum(axes)),
        )

    def less(self, part: Sums) -> Sums:
        """Without some of the runs."""
        return Sums(
            self.gram - part.gram,
            self.cross - part.cross,
            self.count - part.count,
        )

    def solved(self, penalty: Array) -> Array:
        """(..., k) coefficients of the fit."""
        return np.asarray(np.linalg.solve(self.gram + penalty, self.cross[..., None])[..., 0])


def sums(runs: Runs, design: Array) -> Sums:
    """Sums over the runs of each (seed, cluster): leading axes (S, G)."""
    order = np.argsort(runs.cluster, kind="stable")
    starts = np.searchsorted(runs.cluster[order], np.arange(runs.cluster.max() + 1))
    there = ~np.isnan(runs.costs[order]).T
    costs = np.where(there, runs.costs[order].T, 0.0)
    x = design[order]
    outer = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)

    def added(values: Array) -> Array:
        return np.add.reduceat(values, starts, axis=1)

    k = design.shape[1]
    if there.all():
        gram = np.broadcast_to(added(outer[None]), (len(there), len(starts), k * k))
    else:
        gram = added(there[:, :, None] * outer)
    return Sums(
        gram.reshape(len(there), len(starts), k, k),
        added(costs[:, :, None] * x),
        added(np.asarray(there, float)),
    )


@dataclass(frozen=True)
class LeftOut:
    """A statistic of everything but a cluster, a seed, or a seed's runs of a cluster."""

    clusters: Array
    seeds: Array
    both: Array

    def error(self, loadings: Array) -> tuple[Array, Array]:
        """Standard error, and its degrees of freedom.

        The two-way jackknife: what clusters vary by, plus what seeds vary by beyond single runs.

        Args:
            loadings: (clusters, ...) variance of the statistic that independent noise of a cluster causes.

        Source: Efron & Tibshirani 1993, ch. 11; Cameron, Gelbach & Miller 2011 for two ways.
        """
        by_cluster, by_seed, by_both = (_variance(v) for v in (self.clusters, self.seeds, self.both))
        between = np.maximum(by_seed - by_both, 0.0)
        total = by_cluster + between
        shares = by_cluster**2 / effective_freedom(loadings) + between**2 / max(len(self.seeds) - 1, 1)
        welch = np.where(shares > 0, total**2 / np.where(shares > 0, shares, 1.0), 1.0)
        return np.asarray(np.sqrt(total), np.float64), np.asarray(welch, np.float64)


def effective_freedom(loadings: Array) -> Array:
    """Degrees of freedom of a variance over clusters that count unequally: clusters - 1 where all are equal.

    Source: Bell & McCaffrey 2002, simplified to independent noise.

    >>> effective_freedom(np.array([1.0, 1.0, 1.0, 1.0])), effective_freedom(np.array([1.0, 1e-9]))
    (array(3.), array(1.))
    """
    squares = (loadings**2).sum(0)
    return np.asarray(np.maximum(loadings.sum(0) ** 2 / np.where(squares > 0, squares, 1.0) - 1, 1.0))


def left_out(parts: Sums, statistic: Callable[[Sums], Array]) -> LeftOut:
    """``statistic`` without each cluster, seed, and seed of a cluster.

    Args:
        parts: Sums of each (seed, cluster).
        statistic: Of sums with any leading axes.
    """
    total = parts.over(0, 1)
    without_cluster = statistic(total.less(parts.over(0)))
    if len(parts.count) < 2:
        nothing_left_out = statistic(total)[None]
        return LeftOut(without_cluster, nothing_left_out, nothing_left_out)
    there = parts.count > 0
    return LeftOut(
        without_cluster,
        statistic(total.less(parts.over(1))),
        statistic(total.less(Sums(parts.gram[there], parts.cross[there], parts.count[there]))),
    )


def _variance(values: Array) -> Array:
    n = len(values)
    if n < 2:
        return np.zeros(values.shape[1:])
    return np.asarray((n - 1) / n * ((values - values.mean(0)) ** 2).sum(0))
