"""Runs that differ in their seed alone, taken together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.intervals import t_quantile
from lora_alpha.metrics import EVAL_LOSS, Metric

Status = Literal["finished", "failed", "pending", "unreached", "unrecorded"]
CONSTANT = "constant"
MIN_SEEDS = 3  # with fewer, differences between cells may be noise


@dataclass(frozen=True)
class RunOutcome:
    """What the analysis knows of one run.

    Attributes:
        method: Fine-tuning method.
        rank: Rank, None for full fine-tuning.
        alpha: α as configured, None for full fine-tuning.
        scale: Effective scale s.
        lr: Learning rate η.
        seed: Seed.
        status: ``finished``, ``failed`` (or lost, or cancelled), ``pending``; ``unreached``: it ended
            before it came to the target that steps are counted to; ``unrecorded``: without this metric.
        loss: The metric that α is chosen by, by default the held-out loss; None unless finished and finite.
        diverged: The run became non-finite or left every sensible range.
        lr_ratio: lr_B / lr_A.
        forgetting: Loss on the source task, if the workload has one.
        alpha_schedule: How α moved during training, ``CONSTANT`` where it did not.
    """

    method: str
    rank: int | None
    alpha: float | None
    scale: float | None
    lr: float
    seed: int
    status: Status
    loss: float | None
    diverged: bool = False
    lr_ratio: float = 1.0
    forgetting: float | None = None
    alpha_schedule: str = CONSTANT


CellKey = tuple[str, int | None, float | None, float, float, str]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The seeds of one (method, rank, α, lr, lr_ratio, schedule of α) taken together.

    ``mean``, ``std`` (n-1) and the 95 % interval are over the ``n`` finite losses; diverged, failed, pending,
    unreached and unrecorded runs are counted, never averaged. ``losses`` maps seed to loss. Where α moves,
    ``scale`` is the one that α stands for.

    All of them are in the unit of ``metric``. ``cost`` and ``costs`` are what analysis makes as low as
    possible: the mean and the losses, with their sign turned where higher is better.
    """

    method: str
    rank: int | None
    alpha: float | None
    scale: float | None
    lr: float
    lr_ratio: float = 1.0
    n: int
    mean: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None
    num_diverged: int
    num_failed: int
    num_pending: int = 0
    forgetting: float | None = None
    alpha_schedule: str = CONSTANT
    losses: dict[int, float] = field(default_factory=dict)
    metric: Metric = EVAL_LOSS
    num_unreached: int = 0
    num_unrecorded: int = 0

    @property
    def measured(self) -> bool:
        """Whether the cell may be an optimum: some loss, and every seed that ended came to one.

        A mean over the seeds that did not diverge, or that reached a target, flatters a cell that loses some.
        """
        return self.mean is not None and not self.num_diverged and not self.num_unreached

    @property
    def tried(self) -> bool:
        """Whether it is known how the cell went: well, or badly."""
        return self.measured or self.num_diverged > 0 or self.num_unreached > 0

    @property
    def sign(self) -> float:
        """1 where lower is better, -1 where higher is."""
        return self.metric.sign

    @property
    def cost(self) -> float | None:
        """The mean, lower is better; None without one."""
        return None if self.mean is None else self.sign * self.mean

    @property
    def costs(self) -> dict[int, float]:
        """Seed to loss, lower is better."""
        return {seed: self.sign * loss for seed, loss in self.losses.items()}


def make_cells(outcomes: Iterable[RunOutcome], *, metric: Metric = EVAL_LOSS) -> list[Cell]:
    """Group runs into cells, sorted by method, lr, lr_ratio, schedule, rank, α.

    ``metric`` is what the losses of ``outcomes`` are values of.

    The interval is mean ± t·s/√n with s pooled over the cells of the same method and rank, whose
    degrees of freedom add up: with 3 seeds a cell's own s is nearly worthless.

    >>> runs = [RunOutcome("lora", 4, 8.0, 2.0, 1e-3, seed, "finished", 1.0 + seed) for seed in range(3)]
    >>> cell, = make_cells(runs)
    >>> cell.n, cell.mean, cell.std
    (3, 2.0, 1.0)
    """
    groups: dict[CellKey, list[RunOutcome]] = {}
    for run in outcomes:
        key = (run.method, run.rank, run.alpha, run.lr, run.lr_ratio, run.alpha_schedule)
        groups.setdefault(key, []).append(run)
    pooled = _pooled_variance(groups)
    cells = [_cell(members, metric, *pooled[key[0], key[1]]) for key, members in groups.items()]
    return sorted(cells, key=_position)


def constant_alpha(cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose α did not move: what a law of α is about."""
    return [cell for cell in cells if cell.alpha_schedule == CONSTANT]


def cost_table(cells: Sequence[Cell], seeds: Sequence[int]) -> NDArray[np.float64]:
    """The cost of every seed at every cell, NaN where it has none: (len(seeds), len(cells))."""
    return np.array([[cell.costs.get(seed, math.nan) for cell in cells] for seed in seeds])


def best_cell(cells: Iterable[Cell]) -> Cell | None:
    """The measured cell of the best mean: the lowest loss, the highest accuracy."""
    measured = [cell for cell in cells if cell.measured]
    return min(measured, key=lambda cell: math.inf if cell.cost is None else cell.cost, default=None)


def _position(cell: Cell) -> tuple[str, float, float, str, int, float]:
    return cell.method, cell.lr, cell.lr_ratio, cell.alpha_schedule, cell.rank or 0, cell.alpha or 0.0


def _pooled_variance(
    groups: dict[CellKey, list[RunOutcome]],
) -> dict[tuple[str, int | None], tuple[float, int]]:
    squares: dict[tuple[str, int | None], tuple[float, int]] = {}
    for key, members in groups.items():
        losses = np.array(_finite(members))
        total, freedom = squares.get((key[0], key[1]), (0.0, 0))
        if len(losses) > 1:
            total += float(((losses - losses.mean()) ** 2).sum())
            freedom += len(losses) - 1
        squares[key[0], key[1]] = (total, freedom)
    return {key: (total / freedom if freedom else 0.0, freedom) for key, (total, freedom) in squares.items()}


def _cell(members: Sequence[RunOutcome], metric: Metric, variance: float, freedom: int) -> Cell:
    first = members[0]
    losses = {run.seed: run.loss for run in members if run.loss is not None and not run.diverged}
    values = np.array(list(losses.values()))
    mean = float(values.mean()) if len(values) else None
    half = None
    if mean is not None and freedom:
        half = float(t_quantile(0.975, freedom) * np.sqrt(variance / len(values)))
    kept = [run.forgetting for run in members if run.forgetting is not None and not run.diverged]
    return Cell(
        method=first.method,
        rank=first.rank,
        alpha=first.alpha,
        scale=first.scale,
        lr=first.lr,
        lr_ratio=first.lr_ratio,
        n=len(losses),
        mean=mean,
        std=float(values.std(ddof=1)) if len(values) > 1 else None,
        ci_low=None if mean is None or half is None else mean - half,
        ci_high=None if mean is None or half is None else mean + half,
        num_diverged=sum(run.diverged for run in members),
        num_failed=sum(run.status == "failed" for run in members),
        num_pending=sum(run.status == "pending" for run in members),
        forgetting=float(np.mean(kept)) if kept else None,
        alpha_schedule=first.alpha_schedule,
        losses=losses,
        metric=metric,
        num_unreached=sum(run.status == "unreached" for run in members),
        num_unrecorded=sum(run.status == "unrecorded" for run in members),
    )


def _finite(members: Sequence[RunOutcome]) -> list[float]:
    return [run.loss for run in members if run.loss is not None and not run.diverged]
