"""Random numbers as a pure function of (stream, seed, step, position): no generator state to save.

Every draw is one SplitMix64 finaliser of a counter, vectorised over all configurations of a pack, so that a
batch costs no Python loop per configuration and an interrupted run continues with the very same examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_alpha.splitmix import GOLDEN, MIX_1, MIX_2

_GOLDEN, _MIX_1, _MIX_2 = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)


def uniforms(seeds: Sequence[int], *, step: int, count: int, stream: int = 0) -> NDArray[np.float64]:
    """Independent draws from [0, 1), shape (len(seeds), count).

    Args:
        seeds: One seed per configuration; equal seeds get equal rows.
        step: 0-based step; other steps give other draws.
        count: Draws per configuration.
        stream: Separates uses that share seed and step.

    >>> a = uniforms([3, 3, 4], step=7, count=2)
    >>> bool((a[0] == a[1]).all()), bool((a[0] == a[2]).any())
    (True, False)
    """
    key = scramble(np.asarray(seeds, dtype=np.uint64) + _scaled(stream + 1))
    key = scramble(key + _scaled(step + 1))
    position = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    bits = scramble(key[:, None] + position[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def indices(seeds: Sequence[int], *, step: int, count: int, high: int, stream: int = 0) -> NDArray[np.int64]:
    """Independent whole numbers from 0 … high-1, shape (len(seeds), count)."""
    drawn = (uniforms(seeds, step=step, count=count, stream=stream) * high).astype(np.int64)
    return np.minimum(drawn, high - 1)  # the product can round up to ``high`` itself


def scramble(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 finaliser: a bijection of 64-bit words whose output bits look independent."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def _scaled(value: int) -> np.uint64:
    return np.uint64(value * GOLDEN % 2**64)
