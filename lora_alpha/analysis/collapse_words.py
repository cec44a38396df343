"""What is said of a collapse, with its conditions."""

from __future__ import annotations

from collections.abc import Sequence

from lora_alpha.analysis.collapse import CollapseFit, CollapseScore
from lora_alpha.metrics import EVAL_LOSS, Metric


def coordinate_name(exponents: tuple[float, float, float]) -> str:
    """η^b·α^a·r^c of (a, b, c), to two digits.

    >>> coordinate_name((1.0, 1.0, -0.52)), coordinate_name((0.97, 1.0, 0.0))
    ('η·α·r^−0.52', 'η·α^0.97')
    """
    alpha, lr, rank = exponents
    return "·".join(_power(letter, e) for letter, e in (("η", lr), ("α", alpha), ("r", rank)) if e != 0)


def sentence(fit: CollapseFit, scores: Sequence[CollapseScore], *, num_cells: int, metric: Metric) -> str:
    """The verdict of a method, what it rests on and what it leaves open."""
    parts = [*_verdict(fit, scores, num_cells, _word(metric)), *_exponents(fit, scores), *_conditions(fit)]
    return f"{fit.method}: " + ". ".join(map(_capital, parts)) + "."


def _word(metric: Metric) -> str:
    return "the loss" if metric == EVAL_LOSS else metric.name


def _capital(part: str) -> str:
    return part[0].upper() + part[1:] if part[0].isascii() else part  # η stays η


def _power(letter: str, exponent: float) -> str:
    return letter if exponent == 1 else f"{letter}^{_signed(exponent)}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %".replace("-", "−")


def _verdict(fit: CollapseFit, scores: Sequence[CollapseScore], num_cells: int, what: str) -> list[str]:
    if fit.verdict == "not_enough_data":
        return [f"{num_cells} measured cells are too few: four more than ranks are needed"]
    if fit.verdict == "undecided":
        return ["cells of a rank differ no more than seeds do, or not at all: no coordinate can be read off"]
    first = scores[0]
    level = [score for score in scores if score.coordinate in fit.verdict.split(" or ")]
    explains = f"{_share(first.score or 0)} of the variance between cells of a rank{_allowed(fit)}"
    if fit.verdict == "none":
        return [f"no coordinate decides {what}: {first.coordinate} comes first and explains {explains}"]
    names = _listed([score.coordinate for score in level], "and")
    if len(level) == 1:
        rivals = [score for score in scores if score.behind is not None]
        ahead = min(rivals, key=lambda score: score.behind or 0.0)
        return [
            f"{names} decides {what} up to a floor of each rank: it explains {explains}",
            f"its lead over {ahead.coordinate} is {_share(ahead.behind or 0)} of it "
            f"(95 % interval {_share(ahead.behind_low or 0)} to {_share(ahead.behind_high or 0)})",
        ]
    same = {first.coordinate, *first.alike}
    if all(score.coordinate in same for score in level):
        return [f"{names} cannot be told apart: {_why_alike(first)}. Each explains {explains}"]
    return [
        f"{names} cannot be told apart: {first.coordinate} explains {explains}, the others no less for sure"
    ]


def _allowed(fit: CollapseFit) -> str:
    if fit.ceiling is None:
        return " (one seed: how much noise allows is not known)"
    return f" (the noise of seeds allows {_share(fit.ceiling)})"


def _why_alike(score: CollapseScore) -> str:
    ranks, lrs = ({getattr(point, name) for point in score.points} for name in ("rank", "lr"))
    if len(ranks) == 1 and len(lrs) == 1:
        return "one curve"
    if len(ranks) == 1:
        return "one rank"
    if len(lrs) == 1:
        return "one learning rate"
    return "α, η and r were not varied apart"


def _exponents(fit: CollapseFit, scores: Sequence[CollapseScore]) -> list[str]:
    if fit.verdict in ("not_enough_data", "undecided"):
        return []
    named = [("α", fit.alpha), ("r", fit.rank), ("η", fit.lr)]
    known = [(letter, e) for letter, e in named if e is not None and e.low < e.high]
    unknown = [letter for letter, exponent in named if exponent is None]
    parts = []
    if known:
        whole = "" if fit.lr is not None else ", relative to α's"
        values = [
            f"{letter}'s is {_signed(e.value)} (95 % interval {_signed(e.low)} to {_signed(e.high)})"
            for letter, e in known
        ]
        compatible = [score.coordinate for score in scores if score.compatible]
        parts.append(
            f"fitted exponents{whole or ', with η to the power 1'}: {_listed(values, 'and')}; "
            + (
                f"compatible: {_listed(compatible, 'and')}"
                if compatible
                else "no named coordinate is compatible"
            )
        )
    if unknown:
        parts.append(f"not identified: the exponent of {_listed(unknown, 'and')}")
    return parts


def _conditions(fit: CollapseFit) -> list[str]:
    counts = [_count(fit.num_curves, "curve") + " (rank, η)", _count(fit.num_seeds, "seed")]
    if fit.num_diverged:
        counts.append(f"{_count(fit.num_diverged, 'diverged cell')} left out")
    return [", ".join(counts)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _listed(words: Sequence[str], link: str = "or") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {link} {words[-1]}"
