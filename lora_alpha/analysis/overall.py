"""What several comparisons of α against η say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_alpha.analysis.compared import judge
from lora_alpha.analysis.equivalence import SAID, VERDICTS, Equivalence, Verdict
from lora_alpha.analysis.intervals import WINNER_TAIL, Difference


def overall_verdict(items: Sequence[Equivalence]) -> tuple[Verdict, list[str]]:
    """The verdict of all ranks together, and its conditions.

    Ranks that decide differently are ``mixed``. Where they do not, those that no edge, cliff or lack of seeds
    keeps open are averaged, if they scatter no more than their errors say (Cochran's Q, 5 %), and the average
    is judged as one rank is.
    """
    compared = [item for item in items if item.verdict != "not_enough_data"]
    if not compared:
        return "not_enough_data", [] if items else ["no cell of this sweep has a rank and an α to choose"]
    each = "; ".join(f"{_name(item, items)}: {SAID[item.verdict]}" for item in items)
    verdicts = {item.verdict for item in compared}
    decided = verdicts - {"undecided"}
    reasons = [each] if len(items) > 1 else []
    if len(decided) > 1:
        return "mixed", reasons
    if len(verdicts) == 1 and decided:
        return decided.pop(), reasons if len(compared) < len(items) else []
    clear = [item for item in compared if set(item.limits) <= {"width"}]
    average = _average(clear)
    # The grids' spacing biases all ranks alike: a winner must have been named at one of them.
    if average is None or len(clear) < 2 or not {average} <= (decided or {"equivalent"}):
        return "undecided", reasons
    return average, [*reasons, f"decided by the average of {len(clear)} comparisons"]


def _average(items: Sequence[Equivalence]) -> Verdict | None:
    """What the mean of comparisons says, each in units of its margin; None where they disagree."""
    gaps, errors = [], []
    for item in items:
        if item.gap is None or item.error is None or not item.tolerance:
            return None
        gaps.append(item.gap / item.tolerance)
        errors.append(item.error / item.tolerance)
    if not gaps:
        return None
    freedom = sum(item.freedom or 0.0 for item in items)
    error = float(np.linalg.norm(errors)) / len(gaps)
    if error and _disagree(np.array(gaps), np.array(errors)):
        return None
    outcome = judge(Difference(float(np.mean(gaps)), error, freedom), tolerance=1.0, tail=WINNER_TAIL)
    return None if outcome == "open" else VERDICTS[outcome]


def _disagree(gaps: NDArray[np.float64], errors: NDArray[np.float64]) -> bool:
    """Cochran's Q at 5 %."""
    from scipy.special import chdtrc

    if not errors.all():
        return bool(np.ptp(gaps) > 0)
    weights = 1 / errors**2
    middle = float((weights * gaps).sum() / weights.sum())
    return bool(chdtrc(len(gaps) - 1, float((weights * (gaps - middle) ** 2).sum())) < 0.05)


def _name(item: Equivalence, items: Sequence[Equivalence]) -> str:
    parts = [item.method] if len({other.method for other in items}) > 1 else []
    parts.append(f"rank {item.rank}")
    if len({other.lr_ratio for other in items}) > 1:
        parts.append(f"lr ratio {item.lr_ratio:g}")
    return " ".join(parts)
