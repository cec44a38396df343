"""STAND-IN until the surface lands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

D = 400
A = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    x: A
    y: A
    wall_low: float = -np.inf
    wall_high: float = np.inf


@dataclass(frozen=True, eq=False)
class CurveDraws:
    where: A
    c: A
    a: A

    def excess(self, x: float) -> A:
        u = x - self.where
        out: A = self.c * u * u * (1 + self.a * u / (0.5 + np.abs(u)))
        return out


@dataclass(frozen=True)
class Surface:
    curves: tuple[CurveDraws, ...]


def _shape(u: Any, c: Any, a: Any) -> Any:
    return c * u * u * (1 + a * u / (0.5 + np.abs(u)))


def fit_surface(curves: Sequence[Curve], window: float = 2.0) -> Surface:
    data = [(c.x, c.y) for c in curves]
    rng = np.random.default_rng(0)
    ss, df = 0.0, 0
    for x, Y in data:
        m = np.nanmean(Y, 0)
        near = np.abs(x - x[np.nanargmin(m)]) <= 2
        Z = Y[:, near]
        Z = Z[:, ~np.isnan(Z).any(0)]
        if Z.shape[0] < 2 or Z.shape[1] < 2:
            continue
        R = Z - Z.mean(1, keepdims=True) - Z.mean(0, keepdims=True) + Z.mean()
        ss += float((R * R).sum())
        df += (Z.shape[0] - 1) * (Z.shape[1] - 1)
    s2 = ss / max(df, 1)
    xs, ys, vs, js, mu0, m0 = [], [], [], [], [], []
    for j, (x, Y) in enumerate(data):
        y = np.nanmean(Y, 0)
        n = np.isfinite(Y).sum(0)
        b = int(np.nanargmin(y))
        near = (np.abs(x - x[b]) <= window + 1e-9) & np.isfinite(y)
        if near.sum() < 3:
            near = np.zeros(len(x), bool)
            near[np.argsort(np.abs(x - x[b]))[:3]] = True
        xs.append(x[near])
        ys.append(y[near])
        vs.append(s2 / n[near])
        js.append(np.full(near.sum(), j))
        mu0.append(x[b])
        m0.append(y[b])
    x, y, v, j = map(np.concatenate, (xs, ys, vs, js))
    J = len(data)
    mu, m = np.array(mu0, float), np.array(m0, float)
    c = max(np.polyfit(x - mu[j], y - m[j], 2)[0], 1e-3 * (np.ptp(y) + 1e-9))
    v = v + (1e-4 * (np.ptp(y) + 1e-9)) ** 2
    lc = np.log(c)
    th = np.concatenate([mu, m, [lc, 0.0]])

    def model(t: A) -> A:
        return t[J : 2 * J][j] + _shape(x - t[:J][j], np.exp(t[2 * J]), np.tanh(t[2 * J + 1]))

    def jac(t: A) -> tuple[A, A]:
        f0 = model(t)
        out = np.empty((len(x), len(t)))
        for k in range(len(t)):
            e = t.copy()
            e[k] += 1e-4
            out[:, k] = (model(e) - f0) / 1e-4
        return f0, out

    P = np.zeros(len(th))
    P[:J], P[2 * J], P[2 * J + 1] = 1 / 1.5**2, 1 / 9, 1 / 0.49
    p0 = th.copy()
    tau2 = 0.0
    for _ in range(3):
        lam = 1e-3
        w = 1 / (v + tau2)

        def obj(t: A) -> float:
            return float(np.sum(w * (y - model(t)) ** 2) + np.sum(P * (t - p0) ** 2))

        cur = obj(th)
        for _ in range(15):
            f0, Jm = jac(th)
            H = (Jm * w[:, None]).T @ Jm + np.diag(P)
            g = Jm.T @ (w * (y - f0)) - P * (th - p0)
            while True:
                new = th + np.linalg.solve(H + lam * np.diag(np.diag(H) + 1e-12), g)
                new[2 * J] = np.clip(new[2 * J], lc - 4, lc + 4)
                new[2 * J + 1] = np.clip(new[2 * J + 1], -2, 2)
                val = obj(new)
                if val <= cur or lam > 1e6:
                    break
                lam *= 5
            gain = cur - val
            if val <= cur:
                th, cur = new, val
            lam = max(lam / 5, 1e-6)
            if gain < 1e-6 * max(cur, 1):
                break
        r = y - model(th)
        dof = max(len(x) - 2 * J - 1, 1)
        tau2 = max(
            (float(np.sum(r * r)) - float(np.sum(v)) * dof / len(x)) / dof, (0.03 * np.exp(th[2 * J])) ** 2
        )
    _, Jm = jac(th)
    w = 1 / (v + tau2)
    C = np.linalg.inv((Jm * w[:, None]).T @ Jm + np.diag(P))
    L = np.linalg.cholesky((C + C.T) / 2 + 1e-14 * np.eye(len(C)) * np.trace(C))
    f = max(len(x) - 2 * J - 2, 3)
    T = th[:, None] + (L @ rng.standard_normal((len(th), D))) * np.sqrt(f / rng.chisquare(f, D))
    misfit = np.exp(0.2 * rng.standard_normal(D))
    cs = np.exp(np.clip(T[2 * J], lc - 5, lc + 5)) * misfit
    return Surface(tuple(CurveDraws(T[i], cs, np.tanh(T[2 * J + 1])) for i in range(J)))
