"""Which α to try next: coarse first, then half an octave around the best, further out from an edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_alpha.analysis.cells import Cell

COARSE_OCTAVES = 2.0
FINE_OCTAVES = 0.5
# Beyond the given grid an optimum is followed this far; then it stays an edge.
REACH = 16.0


def coarse_grid(alphas: Sequence[float]) -> list[float]:
    """The values of ``alphas`` that lie about two octaves apart, both ends included.

    >>> coarse_grid([32, 64, 128, 256, 512, 1024])
    [32, 128, 512, 1024]
    """
    ordered = sorted(alphas)
    kept = ordered[:1]
    for alpha in ordered[1:]:
        if math.log2(alpha / kept[-1]) >= COARSE_OCTAVES - 1e-9:
            kept.append(alpha)
    return kept if kept[-1] == ordered[-1] else [*kept, ordered[-1]]


def next_alphas(curve: Sequence[Cell], *, low: float, high: float) -> list[float]:
    """The α that one curve (cells equal in all but α) still needs; empty when its optimum is enclosed.

    Around the best cell (the lowest loss, the highest accuracy) the gaps to both neighbours are halved (in
    octaves) until they are half an octave; a diverged neighbour counts as one. From an edge one octave is
    added outwards, within ``low`` … ``high``.

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> cells = make_cells(
    ...     RunOutcome("lora", 4, alpha, alpha / 4, 1e-3, 0, "finished", loss)
    ...     for alpha, loss in [(32.0, 3.0), (128.0, 1.0), (512.0, 2.0)])
    >>> next_alphas(cells, low=2, high=8192)
    [64.0, 256.0]
    """
    tried = sorted(
        (cell for cell in curve if cell.alpha is not None and cell.tried),
        key=lambda cell: cell.alpha or 0.0,
    )
    alphas = [cell.alpha for cell in tried if cell.alpha is not None]
    usable = [index for index, cell in enumerate(tried) if cell.measured]
    if not alphas:
        return []
    if not usable:  # everything diverged: the stable scales lie below
        return _within([alphas[0] / 4], low, high)
    best = min(usable, key=lambda index: _cost(tried[index]))
    wanted = [
        _towards(alphas[best], alphas[best - 1] if best > 0 else None, down=True),
        _towards(alphas[best], alphas[best + 1] if best + 1 < len(alphas) else None, down=False),
    ]
    return _within([alpha for alpha in wanted if alpha is not None], low, high)


def _cost(cell: Cell) -> float:
    return math.inf if cell.cost is None else cell.cost


def _towards(alpha: float, neighbour: float | None, *, down: bool) -> float | None:
    """The next α on one side of the best; None where the neighbour is near enough."""
    way = -1 if down else 1
    if neighbour is None:
        return _tidy(alpha * 2.0**way)
    gap = abs(math.log2(neighbour / alpha))
    if gap <= FINE_OCTAVES + 1e-6:
        return None
    return _tidy(alpha * 2.0 ** (way * max(FINE_OCTAVES, gap / 2)))


def _within(alphas: Sequence[float], low: float, high: float) -> list[float]:
    return [alpha for alpha in alphas if low * (1 - 1e-9) <= alpha <= high * (1 + 1e-9)]


def _tidy(alpha: float) -> float:
    return float(f"{alpha:.6g}")
