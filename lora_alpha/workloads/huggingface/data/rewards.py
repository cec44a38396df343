"""Verifiable rewards of a completion: the right final answer, a pattern, a form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

MARKER = "####"  # what GSM8K's solutions put before their final answer
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
CURRENCY = "$€£%"


@dataclass(frozen=True)
class Rewards:
    """How a completion is judged.

    Attributes:
        exact: Weight of the right final answer.
        answer_pattern: Where the final answer stands: the expression's group, or all that it matches; None
            for the text after the last ``####`` or else the last number.
        pattern: Weight of finding ``pattern_of`` anywhere in the completion.
        pattern_of: The expression.
        form: Weight of the whole completion being of the form ``form_of``.
        form_of: The expression.
    """

    exact: float = 1.0
    answer_pattern: re.Pattern[str] | None = None
    pattern: float = 0.0
    pattern_of: re.Pattern[str] | None = None
    form: float = 0.0
    form_of: re.Pattern[str] | None = None

    def score(self, completion: str, reference: str) -> float:
        """The weighted mean of the parts, 0 … 1.

        Args:
            completion: What the model wrote after the prompt.
            reference: The right final answer.
        """
        parts = [
            (self.exact, self.is_right(completion, reference)),
            (self.pattern, self.pattern_of is not None and bool(self.pattern_of.search(completion))),
            (self.form, self.form_of is not None and bool(self.form_of.fullmatch(completion.strip()))),
        ]
        return sum(weight * met for weight, met in parts) / sum(weight for weight, _ in parts)

    def is_right(self, completion: str, reference: str) -> bool:
        """Whether the completion's final answer equals ``reference``."""
        given = final_answer(completion, self.answer_pattern)
        return given is not None and same_answer(given, reference)


def final_answer(text: str, pattern: re.Pattern[str] | None = None) -> str | None:
    """The final answer in ``text``, None where there is none; the last match counts.

    >>> final_answer("48/2 = 24, so 48 + 24 = 72. #### 72"), final_answer("It is 1,200.")
    ('72', '1,200')
    """
    if pattern is not None:
        matches = list(pattern.finditer(text))
        if not matches:
            return None
        last = matches[-1]
        return (last.group(1) if pattern.groups else last.group()) or None
    if MARKER in text:
        lines = text.rpartition(MARKER)[2].strip().splitlines()
        return lines[0].strip() or None if lines else None
    numbers = NUMBER.findall(text)
    if numbers:
        return str(numbers[-1])
    return text.strip() or None


def same_answer(given: str, reference: str) -> bool:
    """Whether two answers are equal as numbers, or else as text without case and outer white space.

    >>> same_answer("1,200.0", "$1200"), same_answer(" Yes", "yes"), same_answer("7", "8")
    (True, True, False)
    """
    numbers = _number(given), _number(reference)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return given.strip().casefold() == reference.strip().casefold()


def _number(text: str) -> Decimal | None:
    cleaned = text.strip().strip(CURRENCY).rstrip(".").replace(",", "").strip()
    try:
        number = Decimal(cleaned)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
