"""What ``recommend`` prints: the card's numbers in all of their digits, and the trainer's own text."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from command_line.advice import print_advice, recommend
from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.recommend import recommend as recommend_alpha
from lora_alpha.errors import InvalidSpec
from lora_alpha.wire.analysis import Advice
from tests.lora_alpha.analysis.planted import LR, planted_cells


def printed(trainer: str, lr: float = LR) -> tuple[str, Advice]:
    cells = planted_cells(np.random.default_rng(1), num_seeds=3, ranks=(8,))
    answer = Advice(sweep_id="s1", **vars(recommend_alpha(fit_laws(cells), cells, rank=8, lr=lr)))
    file = io.StringIO()
    print_advice(answer, Console(file=file, width=200), trainer=trainer)
    return file.getvalue(), answer


def test_the_card_and_the_snippet_print_one_alpha() -> None:
    text, answer = printed("axolotl")
    assert f"lora_alpha: {answer.alpha:g}\n" in text
    assert f"lora_alpha={answer.alpha:g}" not in text
    for shown in (
        f"{answer.alpha:g}",
        f"{answer.scale:.6g}",
        f"{answer.alpha_low:g} to {answer.alpha_high:g}",
    ):
        assert f" {shown} " in text
    assert "α = 2r" in text
    assert "{" not in text  # no raw records
    assert " 724.08 " in text  # no fifteen digits
    assert "α* ∝ η^" in text


def test_every_trainer_is_printed_on_request() -> None:
    text, _ = printed("all", lr=2 * LR)
    assert all(title in text for title in ("# PEFT", "# TRL", "# axolotl", "# LLaMA-Factory", "# unsloth"))
    assert "keeping α·η" in text


def test_an_unknown_trainer_is_refused_before_the_service_is_asked() -> None:
    with pytest.raises(InvalidSpec, match="choose peft, trl, axolotl, llama-factory, unsloth or all"):
        recommend("http://127.0.0.1:1", sweep="s", rank=8, lr=None, trainer="keras")
