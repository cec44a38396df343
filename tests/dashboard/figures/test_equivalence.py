"""The figure and the table of a collapse say what its verdict says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dashboard.figures.equivalence import BEST, EQUAL_FLOORS, FITTED, MEASURED_FLOORS, collapse_figure
from dashboard.figures.style import LIGHT
from dashboard.tabs.equivalence import TAB
from lora_alpha.wire.analysis import Collapse, Equivalences
from tests.lora_alpha.analysis.planted_collapse import planted, verdict_of


def collapse(**world: Any) -> Collapse:
    fit, scores = verdict_of(planted(np.random.default_rng(0), **world))
    return Collapse(sweep_id="s1", objective="final", verdict=fit.verdict, items=scores, fits=[fit])


def text_of(part: Any) -> str:
    """All words of a component."""
    if isinstance(part, list | tuple):
        return " ".join(map(text_of, part))
    return text_of(part.children) if hasattr(part, "children") else str(part)


@pytest.mark.parametrize(("coordinate", "axis"), [(BEST, "η·α/√r"), ("η·√α", "η·√α"), (FITTED, "η·α^1.0")])
def test_any_coordinate_can_be_drawn(coordinate: str, axis: str) -> None:
    figure = collapse_figure(collapse(), LIGHT, coordinate=coordinate)
    assert figure["layout"]["xaxis"]["title"]["text"].startswith(axis)


def test_floors_are_drawn_equal_or_as_measured() -> None:
    found = collapse(floors=1.0)

    def heights(floors: str) -> list[float]:
        return [y for line in collapse_figure(found, LIGHT, floors=floors)["data"] for y in line["y"]]

    by_rank = sorted(found.items[0].points, key=lambda p: (p.rank, p.lr, p.x))
    assert heights(MEASURED_FLOORS) == [point.loss for point in by_rank]
    assert heights(EQUAL_FLOORS) == [point.level for point in by_rank]
    assert (
        collapse_figure(found, LIGHT)["layout"]["yaxis"]["title"]["text"]
        == "loss, floors of ranks made equal"
    )


def test_negative_losses_are_not_drawn_on_a_logarithmic_axis() -> None:
    assert collapse_figure(collapse(plus=-9.0), LIGHT)["layout"]["yaxis"]["type"] == "linear"
    assert collapse_figure(collapse(floors=0.0), LIGHT)["layout"]["yaxis"]["type"] == "log"


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ({}, ["η·α/√r decides the loss", "fitted", "to −0.", "yes"]),
        ({"ranks": (4,), "num_lrs": 5}, ["cannot be told apart: one rank", "not identified"]),
        ({"ranks": (4,), "num_lrs": 1, "num_alphas": 3}, ["too few"]),
    ],
)
def test_words_and_table_are_those_of_the_verdict(world: dict[str, Any], words: list[str]) -> None:
    assert TAB.draw is not None
    routes = Equivalences(
        sweep_id="s1", objective="final", margin=0.02, verdict="not_enough_data", items=[], reasons=[]
    )
    view = {"coordinate": BEST, "floors": EQUAL_FLOORS}
    shown = text_of(TAB.draw((routes, collapse(**world)), view, LIGHT)[2])
    assert all(word in shown for word in words), shown
