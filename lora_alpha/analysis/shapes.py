"""Shapes that the basin of a loss may have: the candidates among which the curves of a sweep choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

STEP = 1 / 64  # octaves between the tabulated positions
REACH = 14.0  # octaves to either side of the minimum
RATIOS = np.arange(-3.0, 3.01, 0.5)  # log₂ of how much steeper the right side is
TALLEST = 1e5  # rises beyond this are cut: they are never near an optimum

# Symmetric rises h(|z|), and the power with which they grow about one octave off.
BASES: dict[str, tuple[Callable[[Array], Array], float]] = {
    "cusp": (lambda z: z**0.75, 0.75),
    "kink": (lambda z: z, 1.0),
    "power 1.5": (lambda z: z**1.5, 1.5),
    "parabola": (lambda z: z**2, 2.0),
    "cubic": (lambda z: z**3, 3.0),
    "quartic": (lambda z: z**4, 4.0),
    "saturating early": (lambda z: z**2 / (1 + z**2 / 1.2), 2.0),
    "saturating": (lambda z: z**2 / (1 + z**2 / 2.5), 2.0),
    "saturating late": (lambda z: z**2 / (1 + z**2 / 6.0), 2.0),
    "rounded kink": (lambda z: np.sqrt(z**2 + 0.09) - 0.3, 1.2),
    "soft kink": (lambda z: np.sqrt(z**2 + 1.0) - 1.0, 1.2),
    "cosh": (lambda z: np.cosh(np.minimum(0.8 * z, 20.0)) - 1.0, 2.0),
}
# Rises of one side, all of the same curvature at 0.
SIDES: tuple[Callable[[Array], Array], ...] = (
    lambda z: z**2,
    lambda z: z**2 / (1 + z**2 / 1.2),
    lambda z: z**2 / (1 + z**2 / 2.5),
    lambda z: z**2 / (1 + z**2 / 6.0),
    lambda z: 2 * np.sqrt(z**2 + 1.0) - 2.0,
    lambda z: 2 / 0.64 * (np.cosh(np.minimum(0.8 * np.abs(z), 20.0)) - 1.0),
    lambda z: 2 / 1.44 * (np.expm1(np.minimum(1.2 * np.abs(z), 20.0)) - 1.2 * np.abs(z)),
)
TURNS = (0.0, 0.25, 0.5, 1.5)  # octaves over which a basin turns from its left slope to its right one
RATES = np.geomspace(0.2, 2.0, 13)
STRETCHES = (0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)


def positions() -> Array:
    """The grid of z: (T,)."""
    return np.arange(-REACH, REACH + STEP / 2, STEP)


@cache
def shape_table() -> Array:
    """Every candidate shape g on a grid of z = log₂(α / α*): (T, K), z from -REACH to REACH by STEP.

    g is 0 at its minimum z = 0 and rises by 1 at one octave, on the side where it rises less.
    """
    z = positions()
    one_left, one_right = np.searchsorted(z, [-1.0 - STEP / 2, 1.0 - STEP / 2])
    columns = []
    for rise in _rises(z):
        above = rise - rise.min()
        columns.append(np.minimum(above / min(above[one_left], above[one_right]), TALLEST))
    return np.ascontiguousarray(np.stack(columns, axis=1))


def shape_values(table: Array, z: Array) -> Array:
    """All shapes of ``table`` (T, K) at all ``z``: (..., K) for z (...)."""
    below, share = _places(z)
    lower = table[below]
    values: Array = lower + share[..., None] * (table[below + 1] - lower)
    return values


def shape_of_draw(table: Array, z: Array, shapes: Indices) -> Array:
    """The shape of draw d, column ``shapes[d]`` of ``table``, at its own positions: (D, N) for z (D, N)."""
    below, share = _places(z)
    lower = table[below, shapes[:, None]]
    values: Array = lower + share * (table[below + 1, shapes[:, None]] - lower)
    return values


def _places(z: Array) -> tuple[Indices, Array]:
    place = np.clip((z + REACH) / STEP, 0.0, 2 * REACH / STEP - 1e-3)
    below = place.astype(np.int64)
    return below, place - below


def _rises(z: Array) -> Iterator[Array]:
    for base, power in BASES.values():
        for turn in TURNS:
            for ratio in RATIOS:
                if ratio or not turn:
                    yield base(np.abs(_turned(z, 2.0 ** (ratio / power / 2), turn)))
        for stretch in STRETCHES:
            for way in (-1, 1):
                yield base(np.abs(np.expm1(np.minimum(way * stretch * z, 12.0)) / stretch))
    for left, right in permutations(SIDES, 2):
        for ratio in (-2.0, -1.0, 0.0, 1.0, 2.0):
            yield np.where(z > 0, 2.0 ** (ratio / 2) * right(z), 2.0 ** (-ratio / 2) * left(-z))
    for rate in RATES:
        for way in (-1, 1):
            yield np.exp(np.minimum(way * rate * z, 30.0)) - way * rate * z - 1
    for width in (0.25, 0.5, 1.0, 2.0):
        for ratio in (-3, -2, -1, 1, 2, 3):
            yield _hyperbola(z, 2.0 ** (ratio / 2), width)


def _turned(z: Array, steepness: float, turn: float) -> Array:
    """Z stretched by 1/steepness on the left and by steepness on the right, turning over ``turn`` octaves."""
    left, right = 1 / steepness, steepness
    if not turn:
        return np.where(z > 0, right * z, left * z)
    bend = turn * (np.logaddexp(z / turn, -z / turn) - np.log(2.0))
    turned: Array = (left + right) / 2 * z + (right - left) / 2 * bend
    return turned


def _hyperbola(z: Array, steepness: float, width: float) -> Array:
    """A kink of slopes 1/steepness and steepness, rounded over ``width``, with its minimum at 0."""
    tilt, opening = (steepness - 1 / steepness) / 2, (steepness + 1 / steepness) / 2
    shifted = z - tilt * width / np.sqrt(opening**2 - tilt**2)
    kink: Array = tilt * shifted + opening * np.sqrt(shifted**2 + width**2)
    return kink
