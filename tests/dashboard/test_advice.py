"""The card "What to use": one α in heading, range and snippet, for the trainer that was chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dashboard.tabs.law import _advice
from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.recommend import recommend
from lora_alpha.wire.analysis import Advice
from tests.lora_alpha.analysis.planted import planted_cells


@pytest.mark.parametrize(("trainer", "spelled"), [("peft", "lora_alpha={}"), ("axolotl", "lora_alpha: {}")])
def test_heading_range_and_snippet_agree(trainer: str, spelled: str) -> None:
    cells = planted_cells(np.random.default_rng(1), num_seeds=3, ranks=(8,))
    answer = Advice(sweep_id="s1", **vars(recommend(fit_laws(cells), cells, rank=8)))
    drawn = json.dumps(_advice(answer, trainer).to_plotly_json(), default=lambda c: c.to_plotly_json())
    shown = drawn.encode().decode("unicode_escape")
    assert f'α = {answer.alpha:g}"' in shown
    assert f"95 % interval {answer.alpha_low:g} to {answer.alpha_high:g};" in shown
    assert shown.count(spelled.format(f"{answer.alpha:g}")) == 2  # to read, and to copy
    assert "α = 256√r" in shown
