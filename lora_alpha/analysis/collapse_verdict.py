"""Every coordinate's score, which of them the data tell apart, and the exponents that fit best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.cells import Cell
from lora_alpha.analysis.collapse import COORDINATES, CollapseFit, CollapsePoint, CollapseScore, Exponent
from lora_alpha.analysis.collapse_fit import CurveFit, choose_smoothness, explained, fit_curve, lead
from lora_alpha.analysis.collapse_runs import Runs, gather_runs
from lora_alpha.analysis.collapse_words import coordinate_name, sentence
from lora_alpha.analysis.curve_basis import Array
from lora_alpha.analysis.exponents import (
    ALPHA,
    LR,
    RANK,
    exponent_errors,
    fit_exponents,
    free_exponents,
    is_decided,
    start_grid,
    with_exponents,
)
from lora_alpha.analysis.intervals import t_quantile

COLLAPSED = 0.9  # of what noise leaves to explain; below it no coordinate deserves the name
LEAST_CELLS = 4  # more than there are ranks
OUTSIDE = 0.05  # probability of the truth outside the region of all fitted exponents
ONE_FACTOR = 1e-9  # relative distance of coordinates that are powers of one another


def find_collapse(cells: Sequence[Cell], *, method: str) -> list[tuple[CollapseFit, list[CollapseScore]]]:
    """The verdict and every coordinate of ``COORDINATES``, best first, for each lr_ratio of a method."""
    mine = [cell for cell in cells if cell.method == method and cell.rank and cell.alpha]
    ratios = sorted({cell.lr_ratio for cell in mine})
    return [_of_one(method, [cell for cell in mine if cell.lr_ratio == ratio]) for ratio in ratios]


def overall_collapse(fits: Sequence[CollapseFit]) -> str:
    """The verdict that all methods share, else ``mixed``; ``not_enough_data`` without any."""
    verdicts = {fit.verdict for fit in fits} or {"not_enough_data"}
    return verdicts.pop() if len(verdicts) == 1 else "mixed"


def _of_one(method: str, cells: Sequence[Cell]) -> tuple[CollapseFit, list[CollapseScore]]:
    measured = [cell for cell in cells if cell.measured]
    about = CollapseFit(
        method,
        cells[0].lr_ratio,
        "not_enough_data",
        "",
        num_curves=len({(cell.rank, cell.lr) for cell in measured}),
        num_seeds=len({seed for cell in measured for seed in cell.losses}),
        num_diverged=sum(cell.num_diverged > 0 for cell in cells),
    )
    blank = _Scorer(measured, about)
    ranks = {cell.rank for cell in measured}
    if len(measured) < len(ranks) + LEAST_CELLS:
        scores = [blank.unscored(name) for name in COORDINATES]
        return replace(
            about, sentence=sentence(about, scores, num_cells=len(measured), metric=cells[0].metric)
        ), scores
    runs = _clustered(gather_runs(measured))
    directions = {name: np.array(exponents) for name, exponents in COORDINATES.items()}
    varying = {name: d for name, d in directions.items() if np.ptp(runs.logs @ d) > ONE_FACTOR}
    if runs.only_noise or not varying:
        about = replace(about, verdict="undecided", ceiling=runs.ceiling)
        scores = [blank.unscored(name) for name in COORDINATES]
        return replace(
            about, sentence=sentence(about, scores, num_cells=len(measured), metric=cells[0].metric)
        ), scores
    about, region, truth, smoothness = _exponents(runs, about, list(varying.values()))
    fits = {name: fit_curve(runs, direction, smoothness) for name, direction in varying.items()}
    ranked = sorted(fits, key=lambda name: explained(runs, fits[name]), reverse=True)
    first = fits[ranked[0]]
    scorer = _Scorer(measured, about, runs)
    scores = []
    for name in ranked:
        score = replace(
            scorer.scored(name, fits[name]),
            alike=tuple(other for other in ranked if other != name and _alike(fits[name], fits[other])),
            compatible=_inside(COORDINATES[name], about, region),
        )
        if not _alike(first, fits[name]):
            ahead = lead(runs, first, fits[name], truth)
            score = replace(score, behind=ahead.share, behind_low=ahead.low, behind_high=ahead.high)
        scores.append(score)
    scores += [blank.unscored(name) for name in COORDINATES if name not in fits]
    if region and all(exponent in region for exponent in (free_exponents(runs.logs) or (0, ()))[1]):
        a, b, c = (float(value) for value in truth.direction)
        about = replace(about, fitted=scorer.scored(coordinate_name((a, b, c)), truth))
    about = replace(about, ceiling=runs.ceiling, verdict=_verdict(scores, runs.ceiling))
    return replace(
        about, sentence=sentence(about, scores, num_cells=len(measured), metric=cells[0].metric)
    ), scores


def _verdict(scores: Sequence[CollapseScore], ceiling: float | None) -> str:
    best = scores[0].score
    if best is None or best < COLLAPSED * (1.0 if ceiling is None else ceiling):
        return "none"
    return " or ".join(score.coordinate for score in scores if _level_with_first(score))


def _level_with_first(score: CollapseScore) -> bool:
    return score.score is not None and (score.behind_low is None or score.behind_low <= 0)


def _alike(one: CurveFit, other: CurveFit) -> bool:
    """Whether the coordinates are powers of one another, up to a factor, on the measured cells."""
    return bool(abs(np.corrcoef(one.x, other.x)[0, 1]) > 1 - ONE_FACTOR)


def _clustered(runs: Runs) -> Runs:
    """``runs`` with each cell a cluster of its own where no curve can be left out."""
    whole = free_exponents(runs.logs)
    for cluster in range(runs.num_clusters):
        rest = runs.logs[runs.cluster != cluster]
        if runs.num_clusters < 3 or free_exponents(rest) != whole:
            return replace(runs, cluster=np.arange(len(runs.cluster)))
    return runs


Region = dict[int, Exponent]


def _exponents(
    runs: Runs, about: CollapseFit, directions: Sequence[Array]
) -> tuple[CollapseFit, Region | None, CurveFit, float]:
    """The exponents' intervals and their joint region, the fit taken for the truth, the smoothness."""
    smoothness = choose_smoothness(runs, directions)
    identified = free_exponents(runs.logs)
    if identified is None:
        best = min((fit_curve(runs, d, smoothness) for d in directions), key=lambda fit: fit.objective)
        return about, None, best, smoothness
    one, free = identified
    fit = fit_exponents(runs, free=free, smoothness=smoothness, starts=start_grid(one, free))
    smoothness = choose_smoothness(runs, [fit.direction, *directions])
    fit = fit_exponents(runs, free=free, smoothness=smoothness, starts=[fit.direction])
    truth = with_exponents(runs, fit, free)
    found = {one: Exponent(1.0, 1.0, 1.0)}
    region: Region = {}
    if free:
        errors, freedoms = exponent_errors(runs, truth, free)
        for place, exponent in enumerate(free):
            if not is_decided(runs, fit, exponent, free=free, smoothness=smoothness):
                continue
            value, error, freedom = fit.direction[exponent], errors[place], freedoms[place]
            found[exponent] = _exponent(value, error * t_quantile(0.975, freedom))
            tail = OUTSIDE / 2 / len(free)
            region[exponent] = _exponent(value, error * t_quantile(1 - tail, freedom))
    about = replace(about, alpha=found.get(ALPHA), lr=found.get(LR), rank=found.get(RANK))
    return about, region, truth, smoothness


def _exponent(value: float, half: float) -> Exponent:
    return Exponent(float(value), float(value - half), float(value + half))


def _inside(exponents: tuple[float, float, float], about: CollapseFit, region: Region | None) -> bool | None:
    if not region:
        return None
    whole = exponents[LR if about.lr is not None else ALPHA]
    return all(known.low <= exponents[i] / whole <= known.high for i, known in region.items())


class _Scorer:
    """Makes the records of one method's coordinates."""

    def __init__(self, cells: Sequence[Cell], about: CollapseFit, runs: Runs | None = None) -> None:
        self.cells, self.about, self.runs = cells, about, runs

    def unscored(self, name: str) -> CollapseScore:
        """The points alone."""
        exponents = COORDINATES[name]
        logs = np.log2(np.array([[c.alpha or 1, c.lr, c.rank or 1] for c in self.cells], float)).reshape(
            -1, 3
        )
        return self._record(name, exponents, logs @ exponents, None, None)

    def scored(self, name: str, fit: CurveFit) -> CollapseScore:
        """Points with and without floors, and the score."""
        assert self.runs is not None
        a, b, c = (float(value) for value in fit.direction)
        return self._record(
            name, (a, b, c), fit.x, fit.floors[self.runs.rank_index], explained(self.runs, fit)
        )

    def _record(
        self,
        name: str,
        exponents: tuple[float, float, float],
        x: Array,
        floors: Array | None,
        score: float | None,
    ) -> CollapseScore:
        points = tuple(
            CollapsePoint(
                cell.rank or 0,
                cell.lr,
                cell.alpha or 0.0,
                float(2.0**place),
                cell.mean or 0.0,
                None if floors is None else (cell.mean or 0.0) - cell.sign * float(floors[i]),
            )
            for i, (cell, place) in enumerate(zip(self.cells, x, strict=True))
        )
        reached = int(_reached(x, self.cells).sum())
        return CollapseScore(
            self.about.method,
            name,
            score,
            reached,
            len(points) - reached,
            points,
            lr_ratio=self.about.lr_ratio,
            exponents=exponents,
        )


def _reached(x: Array, cells: Sequence[Cell]) -> NDArray[np.bool_]:
    """(n,) whether another (rank, η) has points on both sides of a point, or one at it."""
    curves: dict[tuple[int | None, float], list[int]] = {}
    for i, cell in enumerate(cells):
        curves.setdefault((cell.rank, cell.lr), []).append(i)
    found = np.zeros(len(x), bool)
    for members in curves.values():
        if len(members) > 1:
            within = (x[members].min() <= x) & (x <= x[members].max())
            within[members] = False
            found |= within
    return found
