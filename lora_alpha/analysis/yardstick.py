"""What a difference of a metric is measured against: its level where that means something, else its range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lora_alpha.analysis.cells import Cell
from lora_alpha.metrics import EVAL_LOSS, Metric


@dataclass(frozen=True)
class Yardstick:
    """How large a difference of a metric is, as a share.

    Attributes:
        metric: What differs.
        relative: Shares are of the metric's level: it has a real zero, lower is better, and every measured
            mean lies above 0.
        spread: The range of the measured means, of which shares are taken where they are not relative.
    """

    metric: Metric
    relative: bool
    spread: float

    def share(self, difference: float, *, level: float) -> float | None:
        """``difference`` as a share; None where there is nothing to take a share of."""
        whole = level if self.relative else self.spread
        return difference / whole if whole > 0 else (0.0 if difference == 0 else None)

    def tolerance(self, margin: float, *, level: float) -> float:
        """The difference, in the metric's unit, that is a share of ``margin``."""
        return margin * (level if self.relative else self.spread)

    @property
    def phrase(self) -> str:
        """What shares are of, for people.

        >>> Yardstick(EVAL_LOSS, relative=False, spread=2.0).phrase
        "of eval_loss's range over the sweep"
        """
        return f"of {self.metric.name}" + ("" if self.relative else "'s range over the sweep")


def yardstick(cells: Iterable[Cell]) -> Yardstick:
    """The yardstick of ``cells``, which share a metric.

    >>> from lora_alpha.analysis.cells import RunOutcome, make_cells
    >>> def of(*losses: float) -> Yardstick:
    ...     runs = [RunOutcome("lora", 4, 2.0**k, 1.0, 1e-3, 0, "finished", y) for k, y in enumerate(losses)]
    ...     return yardstick(make_cells(runs))
    >>> of(2.0, 4.0).share(0.5, level=2.0), of(-2.0, 2.0).share(0.5, level=-2.0)
    (0.25, 0.125)
    """
    known = list(cells)
    metric = known[0].metric if known else EVAL_LOSS
    means = [cell.mean for cell in known if cell.measured and cell.mean is not None]
    relative = metric.has_zero and metric.goal == "min" and min(means, default=1.0) > 0
    return Yardstick(metric, relative, max(means) - min(means) if means else 0.0)
