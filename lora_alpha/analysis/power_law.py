"""The law α* = C·r^p (or η* = C·r^p) from the optima of several ranks, censored ones included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from lora_alpha.analysis.optimum import Optimum, Target, jackknife_half_width

CANDIDATES: dict[str, float] = {"p = 0": 0.0, "p = 1/2": 0.5, "p = 1": 1.0}
MIN_RANKS = 3
MIN_RANKS_FOR_AICC = 5
# Scatter of optima about the law cannot be told apart from zero below this (log₂ units): it keeps the
# censored likelihood bounded when three optima happen to lie on a line.
MIN_SCATTER = 0.02

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModelScore:
    """One candidate exponent: its AICc, and how much worse than the best candidate."""

    name: str
    exponent: float | None
    aicc: float
    delta: float


@dataclass(frozen=True)
class LawFit:
    """α* = coefficient · rank^exponent with 95 % intervals over seeds.

    ``covariance`` is that of (log₂ C, p); ``freedom`` its degrees of freedom; ``scatter`` the optima's
    residual spread about the law in octaves. Intervals are None where there are fewer than two seeds.
    """

    exponent: float
    exponent_low: float | None
    exponent_high: float | None
    coefficient: float
    coefficient_low: float | None
    coefficient_high: float | None
    scatter: float
    covariance: tuple[tuple[float, float], tuple[float, float]] | None
    freedom: int

    def predict(self, ranks: Sequence[float]) -> tuple[Array, Array | None, Array | None]:
        """The law at ``ranks`` with its 95 % band: (value, low, high); no band without an interval."""
        x = np.log2(np.asarray(ranks, dtype=np.float64))
        centre = math.log2(self.coefficient) + self.exponent * x
        if self.covariance is None:
            return 2.0**centre, None, None
        (vc, vcp), (_, vp) = self.covariance
        half = stats.t.ppf(0.975, self.freedom) * np.sqrt(np.maximum(vc + 2 * vcp * x + vp * x**2, 0))
        return 2.0**centre, 2.0 ** (centre - half), 2.0 ** (centre + half)


@dataclass(frozen=True)
class Law:
    """A fit and everything that a reader needs to judge it.

    ``fit`` uses every optimum (censored ones by their likelihood), ``fit_uncensored`` only those inside the
    grid. Where no fit is possible both are None and ``reasons`` say why.
    """

    method: str
    fixed: float
    lr_ratio: float
    target: Target
    optima: tuple[Optimum, ...]
    fit: LawFit | None
    fit_uncensored: LawFit | None
    models: tuple[ModelScore, ...]
    num_ranks: int
    num_censored: int
    num_seeds: int
    num_diverged: int
    num_excluded: int
    reasons: tuple[str, ...]


def fit_laws(optima: Sequence[Optimum]) -> list[Law]:
    """One law for each (method, lr_ratio, fixed value, target) among ``optima``."""
    groups: dict[tuple[str, float, float, Target], list[Optimum]] = {}
    for optimum in optima:
        key = (optimum.method, optimum.lr_ratio, optimum.fixed, optimum.target)
        groups.setdefault(key, []).append(optimum)
    return [fit_law(group) for _, group in sorted(groups.items())]


def fit_law(optima: Sequence[Optimum]) -> Law:
    """Fit log₂ α* = log₂ C + p·log₂ r.

    Without censored optima this is least squares. Edges (one-sided) and cliffs (between two cells) enter by
    the likelihood of a normal scatter about the line, whose width is estimated with it. The interval is a
    delete-one-seed jackknife of the whole way from losses to law.

    >>> import dataclasses
    >>> point = Optimum("lora", 1, 2e-4, 1.0, "alpha", 1, None, None, 1, 2, False, False, 1, "", None, None,
    ...                 3, 0, {})
    >>> points = [dataclasses.replace(point, rank=r, value=100 * r**0.5) for r in (1, 4, 16)]
    >>> law = fit_law(points)
    >>> round(law.fit.exponent, 9), round(law.fit.coefficient, 6)
    (0.5, 100.0)
    """
    ordered = sorted(optima, key=lambda optimum: optimum.rank)
    inside = [optimum for optimum in ordered if not optimum.censored]
    censored = [optimum for optimum in ordered if optimum.censored]
    reasons = _reasons(inside, ordered)
    fit = None if reasons else _fit(inside, censored)
    alone = _fit(inside, []) if len(inside) >= MIN_RANKS else None
    first = ordered[0]
    return Law(
        method=first.method,
        fixed=first.fixed,
        lr_ratio=first.lr_ratio,
        target=first.target,
        optima=tuple(ordered),
        fit=fit,
        fit_uncensored=alone,
        models=_compare(inside, censored) if fit else (),
        num_ranks=len(ordered),
        num_censored=len(censored),
        num_seeds=min(optimum.num_seeds for optimum in ordered),
        num_diverged=sum(optimum.num_diverged for optimum in ordered),
        num_excluded=0 if fit else len(ordered),
        reasons=tuple(reasons),
    )


def _reasons(inside: Sequence[Optimum], all_optima: Sequence[Optimum]) -> list[str]:
    reasons = []
    if len(all_optima) < MIN_RANKS:
        reasons.append(f"{len(all_optima)} ranks have an optimum: a law needs at least {MIN_RANKS}")
    if len(inside) < 2:
        reasons.append(
            f"{len(inside)} of {len(all_optima)} optima lie inside the grid: a law needs at least 2. "
            "Extend the α grid beyond its edges"
        )
    return reasons


def _fit(inside: Sequence[Optimum], censored: Sequence[Optimum]) -> LawFit:
    x = np.log2([optimum.rank for optimum in inside])
    intercept, slope, scatter = _solve(x, np.log2([optimum.value for optimum in inside]), censored)
    removed = _shared_seeds(inside)
    estimates = np.array(
        [
            _solve(x, np.log2([optimum.per_seed_removed[seed] for optimum in inside]), censored)[:2]
            for seed in removed
        ]
    )
    half_c = jackknife_half_width([c for c, _ in estimates]) if len(removed) > 1 else None
    half_p = jackknife_half_width([p for _, p in estimates]) if len(removed) > 1 else None
    covariance = None
    if len(removed) > 1:
        n = len(removed)
        centred = estimates - estimates.mean(axis=0)
        (a, b), (_, d) = (n - 1) / n * centred.T @ centred
        covariance = ((float(a), float(b)), (float(b), float(d)))
    return LawFit(
        exponent=slope,
        exponent_low=None if half_p is None else slope - half_p,
        exponent_high=None if half_p is None else slope + half_p,
        coefficient=2.0**intercept,
        coefficient_low=None if half_c is None else 2.0 ** (intercept - half_c),
        coefficient_high=None if half_c is None else 2.0 ** (intercept + half_c),
        scatter=scatter,
        covariance=covariance,
        freedom=max(1, len(removed) - 1),
    )


def _solve(
    x: Array, y: Array, censored: Sequence[Optimum], *, slope: float | None = None
) -> tuple[float, float, float]:
    """Intercept, slope and scatter (log₂ units) by maximum likelihood; ``slope`` may be given."""
    start = _least_squares(x, y, slope)
    if not censored:
        return start
    xc = np.log2([optimum.rank for optimum in censored])
    low = np.array([-np.inf if o.bound_low is None else math.log2(o.bound_low) for o in censored])
    high = np.array([np.inf if o.bound_high is None else math.log2(o.bound_high) for o in censored])

    def unpack(theta: Array) -> tuple[float, float, float]:
        p = float(theta[2]) if slope is None else slope
        return float(theta[0]), p, MIN_SCATTER + math.exp(float(theta[1]))

    def loss(theta: Array) -> float:
        return -_log_likelihood(*unpack(theta), x, y, xc, low, high)

    theta = [start[0], math.log(max(start[2], 0.1)), *([start[1]] if slope is None else [])]
    found = optimize.minimize(loss, theta, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    return unpack(found.x)


def _least_squares(x: Array, y: Array, slope: float | None) -> tuple[float, float, float]:
    if slope is None:
        centred = x - x.mean()
        slope = float((centred * y).sum() / (centred**2).sum())
    intercept = float(y.mean() - slope * x.mean())
    scatter = math.sqrt(float(((y - intercept - slope * x) ** 2).mean()))
    return intercept, slope, scatter


def _log_likelihood(
    intercept: float, slope: float, scatter: float, x: Array, y: Array, xc: Array, low: Array, high: Array
) -> float:
    seen = stats.norm.logpdf(y, intercept + slope * x, scatter).sum()
    centre = intercept + slope * xc
    upper, lower = (high - centre) / scatter, (low - centre) / scatter
    # Differences of tails on the side where they do not cancel.
    flip = lower > 0
    a, b = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    mass = stats.norm.cdf(b) - stats.norm.cdf(a)
    return float(seen + np.log(np.maximum(mass, 1e-300)).sum())


def _shared_seeds(inside: Sequence[Optimum]) -> list[int]:
    sets = [set(optimum.per_seed_removed) for optimum in inside]
    return sorted(set.intersection(*sets)) if sets else []


def _compare(inside: Sequence[Optimum], censored: Sequence[Optimum]) -> tuple[ModelScore, ...]:
    """AICc of p free and of fixed exponents; needs five optima inside the grid."""
    n = len(inside)
    if n < MIN_RANKS_FOR_AICC:
        return ()
    x = np.log2([optimum.rank for optimum in inside])
    y = np.log2([optimum.value for optimum in inside])
    xc = np.log2([optimum.rank for optimum in censored])
    low = np.array([-np.inf if o.bound_low is None else math.log2(o.bound_low) for o in censored])
    high = np.array([np.inf if o.bound_high is None else math.log2(o.bound_high) for o in censored])
    scores = {}
    for name, slope in {"p free": None, **CANDIDATES}.items():
        intercept, p, scatter = _solve(x, y, censored, slope=slope)
        k = 3 if slope is None else 2
        likelihood = _log_likelihood(intercept, p, max(scatter, MIN_SCATTER), x, y, xc, low, high)
        total = n + len(censored)
        scores[name] = (p, 2 * k - 2 * likelihood + 2 * k * (k + 1) / (total - k - 1))
    best = min(aicc for _, aicc in scores.values())
    return tuple(ModelScore(name, p, aicc, aicc - best) for name, (p, aicc) in scores.items())
