"""The verb ``recommend``: which α to use, printed for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from command_line.remote import connect
from lora_alpha.conventions import ENGINES
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.spec import short_number
from lora_alpha.wire.analysis import Advice, RuleCost

ALL = "all"


def recommend(api: str, *, sweep: str, rank: int, lr: float | None, trainer: str, **reading: Any) -> None:
    """Print the recommendation for one rank, and the configuration of ``trainer``.

    ``reading`` is as in ``Client.recommend``.

    Raises:
        InvalidSpec: If no such trainer is known.
    """
    if trainer not in {*ENGINES, ALL}:
        raise InvalidSpec([FieldProblem("for", f"got {trainer!r}: choose {', '.join(ENGINES)} or {ALL}")])
    with connect(api) as client:
        answer = client.recommend(sweep=sweep, rank=rank, lr=lr, **reading)
    print_advice(answer, Console(), trainer=trainer)


def print_advice(answer: Advice, console: Console, *, trainer: str) -> None:
    """The card, what rules cost, warnings and snippets."""
    card = Table(show_header=False)
    for name, value in card_rows(answer):
        card.add_row(name, value)
    console.print(card)
    if answer.regrets:
        console.print(_regrets(answer))
    for warning in (*answer.notes, *answer.warnings):
        console.print(f"[yellow]{warning}[/yellow]")
    for name, text in answer.snippets.items():
        if trainer in {name, ALL}:
            console.print(f"# {ENGINES[name].title}" if trainer == ALL else "", markup=False)
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def card_rows(answer: Advice) -> list[tuple[str, str]]:
    """Names and numbers of the card; α and its ranges in all of their digits."""
    exponent = f"{answer.kappa:.2f} ({answer.kappa_low:.2f} to {answer.kappa_high:.2f})"
    source = f"from {answer.kappa_num_lrs} learning rates" if answer.kappa_num_lrs else "assumed"
    bounded = answer.bounded
    rows = [
        ("sweep", answer.sweep_id),
        ("method, rank, η", f"{answer.method}, {answer.rank}, {short_number(answer.lr)}"),
        ("α", written(answer.alpha)),
        ("scale s", f"{answer.scale:.6g}"),
        ("95 % interval", _range(answer.alpha_low, answer.alpha_high)),
        ("as good", _range(answer.basin_low, answer.basin_high)),
        ("unrounded", f"{answer.alpha_estimate:.6g}"),
        ("from", f"{answer.basis}, {answer.num_supporting_runs} runs"),
        (
            f"expected {answer.metric.name}",
            "unknown" if answer.expected_loss is None else f"{answer.expected_loss:.4g}",
        ),
        ("α* ∝ η^", f"{exponent}, {source}"),
    ]
    if bounded is not None:
        best = "none" if bounded.alpha is None else written(bounded.alpha)
        rows.append((f"α with forgetting ≤ {bounded.max_forgetting:g}", f"{best}: {bounded.reason}"))
    return rows


def written(value: float) -> str:
    """A number in all of its digits.

    >>> written(512.0), written(26.7)
    ('512', '26.7')
    """
    return f"{value:.15g}"


def _range(low: float | None, high: float | None) -> str:
    return "unknown" if low is None or high is None else f"{written(low)} to {written(high)}"


def _regrets(answer: Advice) -> Table:
    first = answer.regrets[0]
    unit = f", {first.unit}" if first.unit else ""
    table = Table(title=f"Above the best at this rank{unit} (shares {first.share_of})")
    for heading in ("", "α", "measured", "estimated (95 %)"):
        table.add_column(heading, justify="right")
    for cost in answer.regrets:
        table.add_row(cost.rule, short_number(cost.alpha), _measured(cost), _estimated(cost))
    return table


def _measured(cost: RuleCost) -> str:
    if not cost.measured:
        return "not run"
    return "diverged" if cost.excess is None else f"{cost.excess:.3g}{_share(cost.cost)}"


def _estimated(cost: RuleCost) -> str:
    if cost.regret is None:
        return cost.reason
    low, high = cost.regret_low, cost.regret_high
    interval = "" if low is None or high is None else f" ({low:.2g} to {high:.2g})"
    return f"{cost.regret:.3g}{interval}{_share(cost.regret_share)}"


def _share(share: float | None) -> str:
    return "" if share is None else f", {share:+.1%}"
