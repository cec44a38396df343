"""Loss surfaces whose law is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.law import Law, fit_laws

RANKS = (1, 2, 4, 8, 16, 32, 64)
GRID = tuple(2.0**k for k in range(3, 13))
LR = 2e-4


def planted_cells(
    rng: np.random.Generator,
    *,
    num_seeds: int,
    exponent: float = 0.5,
    coefficient: float = 128.0,
    ranks: Sequence[int] = RANKS,
    grid: Sequence[float] = GRID,
    noise: float = 0.004,
    shared: float = 0.1,
    own: float = 0.2,
    bend: float = 0.0,
    cliff_octaves: float = math.inf,
) -> list[Cell]:
    """Parabolas of loss in log₂ α about α* = C·r^p.

    A seed moves every optimum by ``shared`` octaves (standard deviation), each of its curves by ``own`` more,
    and its losses up or down as a whole; ``noise`` is added to each loss. ``bend`` is a quadratic term of the
    law about rank 8. Runs ``cliff_octaves`` above the optimum diverge.
    """
    tilt = rng.normal(0, shared, num_seeds)
    runs = []
    for rank in ranks:
        best = math.log2(coefficient) + exponent * math.log2(rank) + bend * (math.log2(rank) - 3) ** 2
        for seed in range(num_seeds):
            shift, level = tilt[seed] + rng.normal(0, own), rng.normal(0, 0.02)
            for alpha in grid:
                away = math.log2(alpha) - best - shift
                loss = 0.5 + 0.012 * away**2 + level + rng.normal(0, noise)
                diverged = math.log2(alpha) - best > cliff_octaves
                runs.append(
                    RunOutcome(
                        "lora",
                        rank,
                        alpha,
                        alpha / rank,
                        LR,
                        seed,
                        "finished",
                        None if diverged else loss,
                        diverged,
                    )
                )
    return make_cells(runs)


def planted_law(rng: np.random.Generator, **options: object) -> Law:
    """The fitted law of a planted surface."""
    (law,) = fit_laws(planted_cells(rng, **options))  # type: ignore[arg-type]
    return law
