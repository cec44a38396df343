"""Grids over α and η whose truth is known, and what running the cells that would decide gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.equivalence import Equivalence, compare_routes
from lora_alpha.metrics import EVAL_LOSS, Metric

ALPHA, LR = 8.0, 1e-4  # the smallest of each
Basin = Callable[[float], float]
BASINS: dict[str, Basin] = {
    "parabola": lambda z: z * z,
    "steeper right": lambda z: (2.0 if z > 0 else 0.7) * z * z,
    "kink": lambda z: 1.7 * z if z > 0 else -0.3 * z,
    "quartic": lambda z: z**4,
    "saturating": lambda z: 2 * z * z / (1 + z * z),
}


def octaves(last: float, step: float = 1.0) -> tuple[float, ...]:
    """Positions above the base point: 0, step, … up to ``last``."""
    return tuple(float(x) for x in np.arange(0.0, last + 1e-9, step))


class Planted:
    """A surface of loss that α·η decides, but for ``gain``: what the α route's minimum is lower by.

    Runs differ by a level of their seed and by ``noise``; each is the same whenever it is run.
    """

    def __init__(
        self,
        *,
        best: float = 3.4,
        basin: str = "parabola",
        rise: float = 0.05,
        noise: float = 0.0,
        gain: float = 0.0,
        cliff: float = math.inf,
        level: float = 1.0,
        metric: Metric = EVAL_LOSS,
        world: int = 0,
    ) -> None:
        self.best, self.basin, self.rise, self.noise = best, BASINS[basin], rise, noise
        self.gain, self.cliff, self.level, self.metric, self.world = gain, cliff, level, metric, world

    def run(self, rank: int, alpha: float, lr: float, seed: int) -> RunOutcome:
        """One run."""
        x, y = math.log2(alpha / ALPHA), math.log2(lr / LR)
        away = x + y - self.best
        rng = np.random.default_rng([self.world, rank, seed, round(1e6 * (x + 40)), round(1e6 * (y + 40))])
        loss = self.level + self.rise * self.basin(away) + 0.1 * math.sin(seed)
        loss += self.noise * rng.standard_normal() - self.gain * min(max(x, 0.0) / 2, 1.0)
        sign = 1.0 if self.metric.goal == "min" else -1.0
        diverged = away > self.cliff
        return RunOutcome(
            "lora",
            rank,
            alpha,
            alpha / rank,
            lr,
            seed,
            "finished",
            None if diverged else sign * loss,
            diverged,
        )

    def grid(
        self,
        alphas: Sequence[float] = octaves(6),
        lrs: Sequence[float] = octaves(6),
        *,
        seeds: int = 3,
        ranks: Sequence[int] = (4,),
    ) -> list[RunOutcome]:
        """Both routes from the base point, given in octaves above it."""
        places = [*((x, 0.0) for x in alphas), *((0.0, y) for y in lrs if y)]
        return [
            self.run(rank, ALPHA * 2**x, LR * 2**y, seed)
            for rank in ranks
            for x, y in places
            for seed in range(seeds)
        ]

    def cells(self, runs: Iterable[RunOutcome]) -> list[Cell]:
        """The runs as cells of the metric."""
        return make_cells(runs, metric=self.metric)

    def compare(self, *args: Sequence[float], margin: float = 0.02, **options: object) -> list[Equivalence]:
        """The comparisons of ``grid``."""
        return compare_routes(self.cells(self.grid(*args, **options)), margin=margin)  # type: ignore[arg-type]

    def settle(self, runs: Sequence[RunOutcome], *, rounds: int) -> list[Equivalence]:
        """The comparisons after the cells that would decide have been run, at most ``rounds`` times."""
        known = {(run.rank, run.alpha, run.lr, run.seed): run for run in runs}
        found = compare_routes(self.cells(known.values()))
        for _ in range(rounds):
            wanted = [c for item in found for cell in item.deciding_cells for c in cell.configurations]
            for c in wanted:
                key = (c["rank"], c["alpha"], c["lr"], c["seed"])
                assert key not in known, "a run that exists is not asked for again"
                known[key] = self.run(*key)
            found = compare_routes(self.cells(known.values()))
        return found
