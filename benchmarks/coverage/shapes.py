"""Shapes of a basin: the loss above its minimum against z, octaves of α above the optimum.

Each is 0 at z = 0, above 0 elsewhere, and rises on average over both sides by 1 one octave away, so that the
size of noise means the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]

REACH = 12.0  # octaves on either side in which a basin's ends are looked for
STEPS_PER_OCTAVE = 64
SHIFTS = 201  # quantiles of the normal distribution that an average over shifts is taken at


def _right_steeper(factor: float) -> Curve:
    return lambda z: np.where(z > 0, factor, 1.0) * z**2


def _two_slopes(z: Array) -> Array:
    return np.where(z > 0, 6.0 * z, -z)


def _shelf_and_wall(z: Array) -> Array:
    return np.where(z > 0, 4.0 * z**2, 1.0 - np.exp(-(z**2)))


RAW: dict[str, Curve] = {
    "parabola": lambda z: z**2,
    "smooth asymmetry": lambda z: np.exp(0.7 * z) - 0.7 * z - 1.0,
    "right side ×2": _right_steeper(2.0),
    "right side ×4": _right_steeper(4.0),
    "right side ×6": _right_steeper(6.0),
    "kink": _two_slopes,
    "soft V": lambda z: np.sqrt(1.0 + (2.0 * z) ** 2) - 1.0,
    "quartic": lambda z: z**4,
    "power 1.5": lambda z: np.abs(z) ** 1.5,
    "right side saturates": lambda z: np.where(z > 0, 2.0 * (1.0 - np.exp(-(z**2) / 2.0)), z**2),
    "both sides saturate": lambda z: z**2 / (1.0 + z**2 / 4.0),
    "logarithmic right side": lambda z: np.where(z > 0, np.log1p(z**2), z**2),
    "shelf and wall": _shelf_and_wall,
    "Morse": lambda z: (1.0 - np.exp(-0.6 * z)) ** 2,
}


def _normalised(raw: Curve) -> Curve:
    rise = float(raw(np.array([-1.0, 1.0])).mean())
    return lambda z: raw(z) / rise


SHAPES: dict[str, Curve] = {name: _normalised(raw) for name, raw in RAW.items()}


@dataclass(frozen=True)
class Basin:
    """The minimum of an expected loss, in octaves from where the shape itself has it, and its basin.

    An end is None where the loss stays within the tolerance as far as is looked.
    """

    optimum: float
    low: float | None
    high: float | None


def expected(shape: str, *, width: float, shift: float) -> Curve:
    """The mean of f((z - s) / width) over shifts s of the optimum, normal with deviation ``shift``."""
    curve = SHAPES[shape]
    if shift == 0:
        return lambda z: curve(np.asarray(z) / width)
    from scipy.special import ndtri

    shifts = shift * ndtri((np.arange(SHIFTS) + 0.5) / SHIFTS)
    return lambda z: curve((np.asarray(z)[..., None] - shifts) / width).mean(axis=-1)


@cache
def basin(shape: str, *, width: float, shift: float, depth: float, floor: float, tolerance: float) -> Basin:
    """Where floor + depth · expected loss is least, and where it is within ``tolerance`` of that, relatively.

    >>> basin("parabola", width=1.0, shift=0.0, depth=0.04, floor=0.5, tolerance=0.02)
    Basin(optimum=0.0, low=-0.5, high=0.5)
    """
    from scipy.optimize import brentq, minimize_scalar

    curve = expected(shape, width=width, shift=shift)

    def at(z: float) -> float:
        return floor + depth * float(curve(np.array(z)))

    optimum = 0.0
    if shift:
        found = minimize_scalar(at, bounds=(-2 * shift, 2 * shift), method="bounded", options={"xatol": 1e-9})
        optimum = float(found.x)
    limit = (1.0 + tolerance) * at(optimum)
    away = np.arange(1, int(REACH * STEPS_PER_OCTAVE) + 1) / STEPS_PER_OCTAVE
    ends: list[float | None] = []
    for way in (-1.0, 1.0):
        above = np.flatnonzero(floor + depth * curve(optimum + way * away) > limit)
        if not len(above):
            ends.append(None)
            continue
        outside = optimum + way * float(away[above[0]])
        inside = outside - way / STEPS_PER_OCTAVE
        ends.append(round(float(brentq(lambda z: at(z) - limit, inside, outside)), 9))
    return Basin(optimum, ends[0], ends[1])
