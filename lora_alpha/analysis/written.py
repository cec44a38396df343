"""The α that a person would write: one number, from which all that is shown beside it is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

DIGITS = 3  # a basin is octaves wide; more digits say nothing
TRAINED_DIGITS = 5  # 16384, but not 256·√8
NEAR = 1 / 16  # octaves; an estimate this near to an α that was trained is that α


def written_alpha(estimate: float, *, low: float, high: float, trained: Iterable[float] = ()) -> float:
    """``estimate`` as it is recommended, inside ``low`` to ``high`` as they are shown.

    An α that was trained is taken where it is all but the estimate: what it costs was measured. Then a whole
    number of three significant digits, which every trainer reads; else three significant digits.

    Args:
        estimate: Best α, > 0.
        low: Smallest α allowed; at most ``estimate``.
        high: Largest α allowed.
        trained: The α that were trained at this rank and learning rate.

    >>> written_alpha(511.8, low=400, high=650, trained=[256, 512]), written_alpha(362.04, low=300, high=400)
    (512, 362.0)
    >>> written_alpha(26.73, low=20, high=30), written_alpha(26.73, low=26.5, high=26.9)
    (27.0, 26.7)
    """
    short_enough = [alpha for alpha in trained if float(f"{alpha:.{TRAINED_DIGITS}g}") == alpha]
    near = min(short_enough, key=lambda alpha: abs(math.log(alpha / estimate)), default=math.nan)
    if abs(math.log2(near / estimate)) <= NEAR:
        return near
    short = float(f"{estimate:.{DIGITS}g}")
    return float(round(short)) if low <= round(short) <= high else short


def outward(low: float, high: float, *, alpha: float) -> tuple[float, float]:
    """A range in the digits of the written ``alpha``, at least three, that holds it and loses nothing.

    >>> outward(301.29, 398.71, alpha=362.0), outward(511.8, 511.8, alpha=512.0)
    ((301.0, 399.0), (511.0, 512.0))
    """
    digits = max(DIGITS, len(Decimal(repr(alpha)).normalize().as_tuple().digits))
    return _rounded(min(low, alpha), digits, ROUND_FLOOR), _rounded(max(high, alpha), digits, ROUND_CEILING)


def _rounded(value: float, digits: int, way: str) -> float:
    exact = Decimal(repr(value))
    last = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return float(exact.quantize(last, rounding=way))
