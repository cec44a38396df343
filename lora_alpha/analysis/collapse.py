"""Which single coordinate of (α, η, r) decides the loss, up to a floor of each rank: what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

# Name → exponents of α, η and r.
COORDINATES: dict[str, tuple[float, float, float]] = {
    "η·α": (1.0, 1.0, 0.0),
    "η·α/r": (1.0, 1.0, -1.0),
    "η·α/√r": (1.0, 1.0, -0.5),
    "η·√α": (0.5, 1.0, 0.0),
    "η·α²/r": (2.0, 1.0, -1.0),
}


@dataclass(frozen=True)
class CollapsePoint:
    """One measured cell on the coordinate's axis; ``level`` is its loss with all floors made equal."""

    rank: int
    lr: float
    alpha: float
    x: float
    loss: float
    level: float | None = None


@dataclass(frozen=True)
class CollapseScore:
    """How well losses are a floor of each rank plus one smooth curve of ``coordinate``.

    Attributes:
        method: Fine-tuning method.
        coordinate: Its name.
        score: Share of the variance between cells of a rank that the curve explains, less what chance does:
            1 is a perfect collapse, 0 no better than the floors; None where it cannot be told.
        num_compared: Points that another (rank, η) reaches.
        num_alone: Points that none does.
        points: The measured cells.
        lr_ratio: lr_B / lr_A of the cells.
        exponents: Of α, η and r.
        alike: Other coordinates that order and space the cells of this sweep in the same way.
        behind: How much more the first coordinate explains; None of the first and those like it.
        behind_low: Lower end of the 95 % interval of ``behind``; 0 or less: not told apart.
        behind_high: Upper end.
        compatible: Whether its exponents lie in the region of the fitted ones; None where none is fitted.
    """

    method: str
    coordinate: str
    score: float | None
    num_compared: int
    num_alone: int
    points: tuple[CollapsePoint, ...]
    lr_ratio: float = 1.0
    exponents: tuple[float, ...] = ()
    alike: tuple[str, ...] = ()
    behind: float | None = None
    behind_low: float | None = None
    behind_high: float | None = None
    compatible: bool | None = None


@dataclass(frozen=True)
class Exponent:
    """A fitted exponent with its 95 % interval; no width where it is 1 by choice."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CollapseFit:
    """The verdict of one method, and the exponents a, b, c for which the loss is a curve of α^a·η^b·r^c.

    Attributes:
        method: Fine-tuning method.
        lr_ratio: lr_B / lr_A of the cells.
        verdict: The coordinate; several with "or" that cannot be told apart; ``none``; ``undecided``;
            ``not_enough_data``.
        sentence: The verdict with its conditions.
        ceiling: The highest score that the noise of seeds allows; None with one seed.
        alpha: a; None where the sweep does not decide it.
        lr: b, 1 where η varies.
        rank: c; relative to α's where only one η was swept (a is 1 then).
        fitted: The score and the points of the fitted coordinate; None where nothing is fitted.
        num_curves: Number of (rank, η).
        num_seeds: Number of seeds.
        num_diverged: Cells that are no points, because a seed of them diverged.
    """

    method: str
    lr_ratio: float
    verdict: str
    sentence: str
    ceiling: float | None = None
    alpha: Exponent | None = None
    lr: Exponent | None = None
    rank: Exponent | None = None
    fitted: CollapseScore | None = None
    num_curves: int = 0
    num_seeds: int = 0
    num_diverged: int = 0
