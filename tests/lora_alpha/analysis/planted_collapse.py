"""Losses that are a floor of each rank plus a curve of one coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lora_alpha.analysis.cells import Cell, RunOutcome, make_cells
from lora_alpha.analysis.collapse import CollapseFit, CollapseScore
from lora_alpha.analysis.collapse_verdict import find_collapse
from lora_alpha.metrics import EVAL_LOSS, Metric

Exponents = tuple[float, float, float]


def basin(octaves: float) -> float:
    """Flat far to the left, steeper to the right."""
    return 0.6 * (1 - math.exp(-((octaves / 3) ** 2))) if octaves < 0 else 0.05 * octaves**2


def straight(octaves: float) -> float:
    """Without any feature that could say where a curve lies."""
    return -0.05 * octaves


def planted(
    rng: np.random.Generator,
    exponents: Exponents = (1.0, 1.0, -0.5),
    *,
    curve: Callable[[float], float] = basin,
    ranks: Sequence[int] = (1, 4, 16, 64),
    num_alphas: int = 8,
    num_lrs: int = 3,
    num_seeds: int = 3,
    noise: float = 0.02,
    floors: float = 0.3,
    shift: float = 0.0,
    missing: float = 0.0,
    times: float = 1.0,
    plus: float = 1.0,
    metric: Metric = EVAL_LOSS,
    diverged_above: float = math.inf,
) -> list[Cell]:
    """Cells over octaves of α and every second octave of η.

    ``floors``, ``noise`` and ``shift`` (octaves, of each (rank, η)) are standard deviations; the metric is
    ``times`` (loss + ``plus``). A share ``missing`` of the runs is absent, runs ``diverged_above`` diverge.
    """
    middle = np.array([6.5, math.log2(2e-4), float(np.log2(ranks).mean())])
    runs = []
    for rank in ranks:
        floor = floors * rng.normal()
        for lr in 2e-4 * 4.0 ** (np.arange(num_lrs) - num_lrs // 2):
            away = shift * rng.normal()
            for seed in range(num_seeds):
                for alpha in 2.0 ** (np.arange(num_alphas) + 7 - num_alphas // 2):
                    place = np.array([math.log2(alpha), math.log2(lr), math.log2(rank)]) - middle
                    octaves = float(place @ np.array(exponents)) - away
                    loss = times * (floor + curve(octaves) + plus + noise * rng.normal())
                    if rng.random() >= missing:
                        gone = octaves > diverged_above
                        value = None if gone else loss
                        runs.append(
                            RunOutcome(
                                "lora",
                                rank,
                                float(alpha),
                                alpha / rank,
                                float(lr),
                                seed,
                                "finished",
                                value,
                                gone,
                            )
                        )
    return make_cells(runs, metric=metric)


def verdict_of(cells: Sequence[Cell]) -> tuple[CollapseFit, list[CollapseScore]]:
    """What is said of planted cells."""
    (found,) = find_collapse(cells, method="lora")
    return found
