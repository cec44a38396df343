"""One route from a base point to a better cost, raising α or η: where it is lowest, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.cells import Cell, best_cell, cost_table
from lora_alpha.analysis.curves import Curve
from lora_alpha.analysis.optimum import Target, value_of
from lora_alpha.analysis.surface import fit_surface

End = Literal["", "low_edge", "high_edge", "cliff"]

MIN_CELLS = 3  # with fewer there is no question of where between them the minimum lies
LIKELY = 0.1  # a minimum that lies beyond the grid's end with this probability counts as one at its edge
REACH = 1.25  # octaves about the minimum in which cells speak for it
ALIKE = 0.1  # octaves: nearer positions of two routes are the same product α·η


@dataclass(frozen=True)
class Route:
    """Cells that were tried along one axis, from low to high.

    Attributes:
        axis: What is raised.
        cells: Measured ones, and those of which a run diverged or did not reach what was asked for.
        x: log₂ of how far each lies above the base point: (n,).
    """

    axis: Target
    cells: tuple[Cell, ...]
    x: NDArray[np.float64]

    @property
    def measured(self) -> list[int]:
        """Places of the cells that may be the best."""
        return [place for place, cell in enumerate(self.cells) if cell.measured]


@dataclass(frozen=True, eq=False)
class Minimum:
    """The lowest point of a route, between its cells.

    Attributes:
        route: The route.
        best: Place of the best cell.
        end: ``low_edge``, ``high_edge``: the best cell is the grid's last, or the minimum lies beyond it with
            a probability of ``LIKELY`` or more; ``cliff``: the cell next to the best diverged or has no loss.
        where: log₂ of the position above the base point, median of the draws.
        by_seed: Seed → cost averaged over the cells around the minimum.
        excess: Draws of how far that average lies above the minimum: (D,).
        fall: How much lower than drawn the minimum may be, next to a cliff: see ``_fall``.
        gap: Octaves from the best cell to the farther of its neighbours.
    """

    route: Route
    best: int
    end: End
    where: float
    by_seed: dict[int, float]
    excess: NDArray[np.float64]
    fall: float
    gap: float

    @property
    def cell(self) -> Cell:
        """The best cell."""
        return self.route.cells[self.best]


def take_route(cells: Sequence[Cell], axis: Target, *, base: float) -> Route:
    """The tried cells of one axis, in order of what is raised."""
    tried = [cell for cell in cells if cell.tried]
    tried.sort(key=lambda cell: value_of(cell, axis))
    x = np.log2([value_of(cell, axis) / base for cell in tried])
    return Route(axis, tuple(tried), x)


def find_minima(routes: Sequence[Route]) -> list[Minimum]:
    """The minimum of every route, each of a measured cell at least, all routes of one surface.

    The cells within ``REACH`` octaves of the minimum speak for it, nearer ones more, each for its cost less
    what it lies above the minimum by the surface: so neither the spacing of a grid nor the luck of the one
    cell that came out best decides.
    """
    fitted = [row for row, route in enumerate(routes) if len(route.measured) >= MIN_CELLS]
    draws = fit_surface([_curve(routes[row]) for row in fitted]).curves if fitted else ()
    of_row = dict(zip(fitted, draws, strict=True))
    minima = []
    for row, route in enumerate(routes):
        cell = best_cell(route.cells)
        assert cell is not None
        best = route.cells.index(cell)
        if row not in of_row:
            edge: End = "low_edge" if best == 0 else "high_edge"
            zero = np.zeros(1)
            minima.append(Minimum(route, best, edge, float(route.x[best]), cell.costs, zero, 0.0, math.inf))
            continue
        found = of_row[row]
        low, high = route.x[max(best - 1, 0)], route.x[min(best + 1, len(route.x) - 1)]
        where = float(np.clip(np.median(found.where), low, high))
        weights = _weights(route, where, best)
        excess = sum(weight * found.excess(float(route.x[place])) for place, weight in weights.items())
        assert not isinstance(excess, int)
        costs = {place: route.cells[place].costs for place in weights}
        minima.append(
            Minimum(
                route=route,
                best=best,
                end=_end(route, best, found.where),
                where=where,
                by_seed=weighted_costs(costs, weights),
                excess=excess,
                fall=max(_fall(route, best, way) for way in (-1, 1)),
                gap=float(max(high - route.x[best], route.x[best] - low)),
            )
        )
    return minima


def matched(first: Route, second: Route) -> tuple[dict[int, float], dict[int, float]] | None:
    """Costs by seed of both routes' best cells among those that lie equally far above the base point.

    If the product α·η alone decides the cost, these are equal whatever the basin's shape. None where fewer
    than ``MIN_CELLS`` positions agree.
    """
    pairs = [
        (one, other)
        for place, one in enumerate(first.cells)
        for near, other in enumerate(second.cells)
        if abs(first.x[place] - second.x[near]) <= ALIKE
    ]
    best = best_cell([one for one, _ in pairs]), best_cell([other for _, other in pairs])
    if len(pairs) < MIN_CELLS or best[0] is None or best[1] is None:
        return None
    return best[0].costs, best[1].costs


def weighted_costs(costs: dict[int, dict[int, float]], weights: dict[int, float]) -> dict[int, float]:
    """Seed → the weighted mean of its costs over cells; weights add to 1.

    A seed that lacks a cell gets there what an additive model of cells and seeds says; one that has none of
    them is left out.

    >>> weighted_costs({0: {7: 1.0, 8: 2.0}, 1: {7: 3.0}}, {0: 0.5, 1: 0.5})
    {7: 2.0, 8: 3.0}
    """
    seeds = sorted({seed for of_seed in costs.values() for seed in of_seed})
    table = np.array([[costs[place].get(seed, np.nan) for place in costs] for seed in seeds])
    here = np.isfinite(table)
    if not here.all():
        num_seeds, num_cells = table.shape
        rows, columns = np.nonzero(here)
        design = np.zeros((len(rows), num_seeds + num_cells))
        design[np.arange(len(rows)), rows] = 1.0
        design[np.arange(len(rows)), num_seeds + columns] = 1.0
        effects = np.linalg.lstsq(design, table[here], rcond=None)[0]
        table = np.where(here, table, effects[:num_seeds, None] + effects[None, num_seeds:])
    means = table @ np.array([weights[place] for place in costs])
    return {seed: float(mean) for seed, mean in zip(seeds, means, strict=True)}


def _curve(route: Route) -> Curve:
    """What the surface fits: measured cells by seed, and the nearest diverged ones as walls."""
    measured = route.measured
    cells = [route.cells[place] for place in measured]
    lowest = best_cell(cells)
    assert lowest is not None
    best = route.cells.index(lowest)
    seeds = sorted({seed for cell in cells for seed in cell.costs})
    walls = [route.x[place] for place, cell in enumerate(route.cells) if not cell.measured]
    below = [wall for wall in walls if wall < route.x[best]]
    above = [wall for wall in walls if wall > route.x[best]]
    return Curve(
        route.x[measured],
        cost_table(cells, seeds),
        max(below, default=-math.inf),
        min(above, default=math.inf),
    )


def _weights(route: Route, where: float, best: int) -> dict[int, float]:
    """Place → weight of the cells around the minimum, falling linearly to 0 at ``REACH`` octaves."""
    raw = {place: max(0.0, 1 - abs(float(route.x[place]) - where) / REACH) for place in route.measured}
    total = sum(raw.values())
    if not total:
        return {best: 1.0}
    return {place: weight / total for place, weight in raw.items() if weight > 0}


def _end(route: Route, best: int, where: NDArray[np.float64]) -> End:
    last = len(route.cells) - 1
    neighbours = [route.cells[place] for place in (best - 1, best + 1) if 0 <= place <= last]
    if not all(cell.measured for cell in neighbours):
        return "cliff"
    if best == 0 or (route.cells[0].measured and float(np.mean(where < route.x[0])) >= LIKELY):
        return "low_edge"
    beyond = route.cells[-1].measured and float(np.mean(where > route.x[-1])) >= LIKELY
    return "high_edge" if best == last or beyond else ""


def _fall(route: Route, best: int, way: int) -> float:
    """How much lower than the best cell a minimum between it and a diverged neighbour may be.

    A convex basin lies above the line through the best cell and its other neighbour, prolonged: 0 where the
    neighbour on this side has not diverged, infinite where there is no other one to draw the line from.
    """
    cliff, other = best + way, best - way
    if not 0 <= cliff < len(route.cells) or route.cells[cliff].measured:
        return 0.0
    if not 0 <= other < len(route.cells) or not route.cells[other].measured:
        return math.inf
    here, there = route.cells[best].cost, route.cells[other].cost
    assert here is not None
    assert there is not None
    slope = (there - here) / abs(float(route.x[other] - route.x[best]))
    return max(slope, 0.0) * abs(float(route.x[cliff] - route.x[best]))
