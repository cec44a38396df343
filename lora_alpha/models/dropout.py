"""Dropout on the adapters' inputs, drawn as a pure function of what it drops.

A hash of (seed, step, layer, micro-batch, example, token, feature) decides whether an element stays. There
is no generator state: a configuration drops the same elements in any pack, on any device, with any padding,
after a resume, and when gradient checkpointing computes a layer a second time. The base's own dropout is not
touched by this; workloads switch it off.

Shapes: N configurations, B examples each, T tokens, M = B·T rows, R = N·M rows of all, I features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from lora_alpha.splitmix import GOLDEN, MIX_1, MIX_2

# SplitMix64's constants as signed 64-bit words.
_GOLDEN, _MIX_1, _MIX_2 = GOLDEN - 2**64, MIX_1 - 2**64, MIX_2 - 2**64
# Murmur3's 32-bit finaliser constants as signed words (Appleby, public domain).
_MIX_3 = 0x85EBCA6B - 2**32
_MIX_4 = 0xC2B2AE35 - 2**32
# Positions of one example: any token count below it keeps the examples apart.
_EXAMPLE_STRIDE = 2**32
_COLUMNS_KEY = 0x5DEECE66D
_CACHED_ELEMENTS = 2**15


class AdapterDropout:
    """Whether the adapters of a pack drop inputs now, and which elements.

    Off except inside ``dropping``. Seeds are in pack order.
    """

    def __init__(self, rate: float, seeds: Sequence[int]) -> None:
        self.rate = rate
        self.seeds = tuple(seeds)
        self._when: tuple[int, int] | None = None

    @property
    def active(self) -> bool:
        """True while inputs are dropped."""
        return self._when is not None and self.rate > 0

    @contextmanager
    def dropping(self, *, step: int, microbatch: int = 0) -> Iterator[None]:
        """Inside, adapters drop the elements of optimiser step ``step``: around forward *and* backward."""
        before, self._when = self._when, (step, microbatch)
        try:
            yield
        finally:
            self._when = before

    def drop(self, x_NMI: Tensor, *, layer_index: int, tokens: int) -> Tensor:
        """``x`` with a share ``rate`` of its elements zero and the others divided by 1 - ``rate``.

        Args:
            x_NMI: Inputs of that layer.
            layer_index: Number of the layer among the adapted ones.
            tokens: Rows of one example, T.
        """
        assert self._when is not None
        keep = keep_mask(
            [(seed, *self._when, layer_index) for seed in self.seeds],
            rows=x_NMI.shape[1],
            tokens=tokens,
            features=x_NMI.shape[2],
            rate=self.rate,
            device=x_NMI.device,
        )
        # Rounded to half precision, 1/(1 - rate) would be the same part in a thousand off for every element.
        factor = keep.to(torch.promote_types(x_NMI.dtype, torch.float32)).mul_(1 / (1 - self.rate))
        return (x_NMI * factor).to(x_NMI.dtype)


def keep_mask(
    keys: Sequence[tuple[int, ...]],
    *,
    rows: int,
    tokens: int,
    features: int,
    rate: float,
    device: torch.device,
) -> Tensor:
    """Which elements stay, bool (N, rows, features).

    Args:
        keys: For each configuration what its draws depend on: seed, step, micro-batch, layer.
        rows: M, ``tokens`` for each example in turn.
        tokens: Rows of one example.
        features: I.
        rate: Share of elements that go, 0 … 1.
        device: Where to make it.
    """
    row = torch.arange(rows, device=device)
    position_M = torch.div(row, tokens, rounding_mode="floor") * _EXAMPLE_STRIDE + row % tokens
    key_N = _hash(torch.tensor(keys, dtype=torch.int64)).to(device)
    row_NM = _scramble(key_N[:, None] + position_M * _GOLDEN)
    # Elements in 32 bits, and on a CPU in blocks that its cache holds: the passes over them are what costs.
    row_R1 = (row_NM >> 32).to(torch.int32).view(-1, 1)
    column_I = _columns(features, device)
    keep_RI = torch.empty(len(row_R1), features, dtype=torch.bool, device=device)
    block = max(1, _CACHED_ELEMENTS // features) if device.type == "cpu" else len(row_R1)
    for row_B1, keep_BI in zip(torch.split(row_R1, block), torch.split(keep_RI, block), strict=True):
        bits = (row_B1 + column_I).mul_(_MIX_3)
        bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF)).mul_(_MIX_4)
        torch.ge(bits, round(rate * 2**32) - 2**31, out=keep_BI)
    return keep_RI.view(len(keys), rows, features)


@lru_cache(maxsize=64)
def _columns(features: int, device: torch.device) -> Tensor:
    words = _scramble(torch.arange(features, device=device) * _GOLDEN + _COLUMNS_KEY)
    return (words >> 32).to(torch.int32)


def _hash(numbers_NK: Tensor) -> Tensor:
    """One word for each row of whole numbers, (N,)."""
    word_N = torch.zeros_like(numbers_NK[:, 0])
    for number_N in numbers_NK.unbind(1):
        word_N = _scramble(word_N + (number_N + 1) * _GOLDEN)
    return word_N


def _scramble(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser on signed words, whose right shift must be made logical."""
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * _MIX_1
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * _MIX_2
    return bits ^ ((bits >> 31) & (2**33 - 1))
