"""Which single coordinate of (α, η, r) decides the loss?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lora_alpha.analysis.cells import Cell

COORDINATES: dict[str, Callable[[float, float, float], float]] = {
    "η·α": lambda alpha, lr, rank: lr * alpha * rank**0,
    "η·α/r": lambda alpha, lr, rank: lr * alpha / rank,
    "η·α/√r": lambda alpha, lr, rank: lr * alpha / math.sqrt(rank),
    "η·√α": lambda alpha, lr, rank: lr * math.sqrt(alpha) * rank**0,
    "η·α²/r": lambda alpha, lr, rank: lr * alpha**2 / rank,
}
COLLAPSED = 0.9  # below this share of explained variance no coordinate deserves the name


@dataclass(frozen=True)
class CollapsePoint:
    """One measured cell on the coordinate's axis."""

    rank: int
    lr: float
    alpha: float
    x: float
    loss: float


@dataclass(frozen=True)
class CollapseScore:
    """How well the curves of all (rank, η) fall on one line when drawn against ``coordinate``.

    ``score`` is 1 - mean squared misfit / variance of log loss, where the misfit of a point is its log loss
    against the other curves interpolated at its x; points that no other curve reaches are left out and
    counted. 1 is a perfect collapse, 0 no better than a constant; None where curves do not overlap.
    """

    method: str
    coordinate: str
    score: float | None
    num_compared: int
    num_alone: int
    points: tuple[CollapsePoint, ...]


def collapse_scores(cells: Sequence[Cell], *, method: str) -> list[CollapseScore]:
    """Every coordinate of ``COORDINATES``, best first."""
    scores = [_score(name, coordinate, cells, method) for name, coordinate in COORDINATES.items()]
    return sorted(scores, key=lambda score: -math.inf if score.score is None else score.score, reverse=True)


def collapsing_coordinate(scores: Sequence[CollapseScore]) -> str:
    """The best coordinate if it deserves the name, else "none"."""
    known = [(score.score, score.coordinate) for score in scores if score.score is not None]
    best, coordinate = max(known, key=lambda item: item[0], default=(-math.inf, "none"))
    return coordinate if best >= COLLAPSED else "none"


def _score(
    name: str, coordinate: Callable[[float, float, float], float], cells: Sequence[Cell], method: str
) -> CollapseScore:
    points = [
        CollapsePoint(c.rank, c.lr, c.alpha, coordinate(c.alpha, c.lr, c.rank), c.mean)
        for c in cells
        if c.method == method and c.measured and c.rank and c.alpha and c.mean and c.mean > 0
    ]
    curves: dict[tuple[int, float], list[CollapsePoint]] = {}
    for point in sorted(points, key=lambda point: point.x):
        curves.setdefault((point.rank, point.lr), []).append(point)
    misfits, alone = [], 0
    for key, curve in curves.items():
        others = [other for other_key, other in curves.items() if other_key != key and len(other) > 1]
        for point in curve:
            expected = [value for other in others if (value := _interpolate(other, point.x)) is not None]
            if expected:
                misfits.append(math.log(point.loss) - float(np.mean(expected)))
            else:
                alone += 1
    variance = float(np.var([math.log(point.loss) for point in points])) if points else 0.0
    score = 1 - float(np.mean(np.square(misfits))) / variance if misfits and variance > 0 else None
    return CollapseScore(method, name, score, len(misfits), alone, tuple(points))


def _interpolate(curve: Sequence[CollapsePoint], x: float) -> float | None:
    if not curve[0].x <= x <= curve[-1].x:
        return None
    xs, ys = [math.log(p.x) for p in curve], [math.log(p.loss) for p in curve]
    return float(np.interp(math.log(x), xs, ys))
