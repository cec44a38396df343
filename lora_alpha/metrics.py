"""What a recorded metric means: which way is better, in what unit, and whether ratios of it mean anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from lora_alpha.errors import FieldProblem, InvalidSpec

Goal = Literal["min", "max"]
GoalFrom = Literal["declared", "given", "name"]


@dataclass(frozen=True)
class Metric:
    """A metric that runs record.

    Attributes:
        name: As recorded.
        goal: ``min`` where lower is better, ``max`` where higher is.
        unit: For people; "" for a plain number.
        has_zero: Its 0 is an absence (of loss, of forgetting), so that "2 % lower" means something as long as
            every value is above 0. Not so for rewards and logarithms of probabilities.
        goal_from: Who says so: its declaration, whoever asked, or nothing but its name (``guess_goal``).
    """

    name: str
    goal: Goal = "min"
    unit: str = ""
    has_zero: bool = False
    goal_from: GoalFrom = "declared"

    @property
    def sign(self) -> float:
        """1 where lower is better, -1 where higher is: a cost is sign · value."""
        return 1.0 if self.goal == "min" else -1.0

    @property
    def better(self) -> str:
        """Which way is better, in words."""
        return "lower is better" if self.goal == "min" else "higher is better"

    @property
    def title(self) -> str:
        """Name, unit and direction, for an axis.

        >>> Metric("accuracy", "max").title, EVAL_LOSS.title
        ('accuracy (higher is better)', 'eval_loss, nats (lower is better)')
        """
        return f"{self.name}{f', {self.unit}' if self.unit else ''} ({self.better})"


EVAL_LOSS = Metric("eval_loss", unit="nats", has_zero=True)
FORGETTING = Metric("forgetting_loss", has_zero=True)
# What our own workloads and the importers record; a workload's entry may declare others, or others of these.
KNOWN = (
    EVAL_LOSS,
    Metric("train_loss", unit="nats", has_zero=True),
    FORGETTING,
    Metric("accuracy", "max", has_zero=True),
    Metric("reward", "max"),
    Metric("p_correct", "max", has_zero=True),
    Metric("kl_from_base", unit="nats", has_zero=True),
)

# The guess by name: words of metrics that trainers and evaluation suites log.
LOWER = re.compile(
    "loss(es)?|nll|xent|crossentropy|perplexity|ppl|bp[bc]|err(or)?s?|r?mse|mae|[wct]er|kl|divergence|"
    "forgetting|regret|fid|ece|brier"
)
HIGHER = re.compile(
    "acc|accurac(y|ies)|rewards?|returns?|scores?|f1|precision|recall|auc|auroc|bleu|chrf|rouge(1|2|l|lsum)?|"
    "meteor|bertscore|exactmatch|em|winrate|passrate|pass|success|correct|mcc|matthews|spearman|pearson|ndcg|"
    "mrr|psnr|ssim|iou|margins?"
)
# With one of these in its name a number is about a metric, or about its worse half, and has no direction.
UNCLEAR = re.compile("std|stderr|var|variance|rejected|scale|weight|coef|coefficient|count|num")


def guess_goal(name: str) -> Goal | None:
    """Which way is better, by the words in ``name``; None where they say nothing, or both.

    Words as loss, error, perplexity and nll: ``min``. Words as accuracy, reward, f1, score, bleu: ``max``.

    >>> [guess_goal(name) for name in ("eval/nll", "eval/rewards/mean", "mmlu_acc", "grad_norm")]
    ['min', 'max', 'max', None]
    >>> guess_goal("reward_loss"), guess_goal("acc_stderr")
    (None, None)
    """
    parts = re.findall(r"[a-z]+\d*", name.lower())
    words = {*parts, *(a + b for a, b in zip(parts, parts[1:], strict=False))}
    low, high, unclear = (any(map(kind.fullmatch, words)) for kind in (LOWER, HIGHER, UNCLEAR))
    if low == high or unclear:
        return None
    return "min" if low else "max"


def describe(name: str, *, goal: Goal | None = None, declared: Iterable[Metric] = ()) -> Metric:
    """What the metric ``name`` means: as declared, else as ``goal`` says, else by a guess from its name.

    Args:
        name: As recorded.
        goal: Overrules declaration and guess.
        declared: A workload's own declarations; they come before ``KNOWN``.

    Raises:
        InvalidSpec: If nobody says which way is better.

    >>> describe("eval/bleu").goal, describe("zest", goal="max").goal_from
    ('max', 'given')
    """
    found = next((metric for metric in (*declared, *KNOWN) if metric.name == name), None)
    if found is not None:
        return found if goal in (None, found.goal) else replace(found, goal=goal, goal_from="given")
    if goal is not None:
        return Metric(name, goal, has_zero=goal == guess_goal(name) == "min", goal_from="given")
    guessed = guess_goal(name)
    if guessed is None:
        message = f"whether lower or higher {name!r} is better is unknown: pass goal=min or goal=max"
        raise InvalidSpec([FieldProblem("goal", message)])
    return Metric(name, guessed, has_zero=guessed == "min", goal_from="name")
