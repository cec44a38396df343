"""The tab of α against η: what it says, and its button."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dashboard.figures.equivalence import routes_figure
from dashboard.figures.style import DARK
from dashboard.tabs import equivalence
from lora_alpha.wire.analysis import DecidingCell, Equivalence
from tests.dashboard.service import ROUTE, FakeService

VIEW = {
    "sweep": "s1",
    "chosen_by": "own",
    "objective": "final",
    "at_step": "",
    "steps_to": "",
    "coordinate": "best",
    "floors": "equal",
}
CELL = {"method": "lora", "rank": 4, "alpha": 8.0, "lr": 8e-4, "lr_ratio": 1.0, "seeds": [0, 2]}


@pytest.fixture
def service() -> FakeService:
    service = FakeService()
    service.answers["/sweeps/s1/equivalence"]["items"] = [{**ROUTE, "deciding_cells": [CELL]}]
    service.answers["/sweeps/s1/extend"] = service.answers["/sweeps/s1"]
    return service


def shown(service: FakeService) -> str:
    client = service.client()
    parts = equivalence.draw(equivalence.fetch(client, VIEW), VIEW, DARK)
    return json.dumps([part.to_plotly_json() for part in parts[0]], default=lambda o: o.to_plotly_json())


def test_the_button_says_how_many_runs_and_runs_exactly_these(service: FakeService) -> None:
    assert "Run the cells that would decide (2 runs)" in shown(service)
    service.requests.clear()
    assert equivalence._run_deciding(service.client(), VIEW) == "Queued: 0 runs"
    (sent,) = [json.loads(request.content) for request in service.requests if request.method == "POST"]
    seedless = {name: value for name, value in CELL.items() if name != "seeds"}
    assert sent == {"cells": [{**seedless, "seed": 0}, {**seedless, "seed": 2}]}


def test_where_nothing_would_decide_there_is_no_button(service: FakeService) -> None:
    service.answers["/sweeps/s1/equivalence"]["items"] = [ROUTE]
    assert equivalence.DECIDE not in shown(service)


def test_a_refusal_is_said_on_the_button(service: FakeService) -> None:
    del service.answers["/sweeps/s1/extend"]
    assert equivalence._run_deciding(service.client(), VIEW).startswith("Not extended: ")


def test_no_word_of_the_code_stands_on_the_page(service: FakeService) -> None:
    answer = service.answers["/sweeps/s1/equivalence"]
    answer["verdict"], answer["reasons"] = "mixed", ["rank 4: α better; rank 16: η better"]
    answer["items"] = [{**ROUTE, "verdict": "alpha_better"}, {**ROUTE, "verdict": "lr_better"}]
    text = shown(service)
    assert "alpha_better" not in text
    assert "lr_better" not in text


def test_the_figure_tells_lr_ratios_apart_and_leaves_open_ends_open() -> None:
    fields: dict[str, Any] = {**ROUTE, "difference": -0.1, "low": None, "high": 0.1}
    items = [Equivalence(**fields), Equivalence(**fields, lr_ratio=16.0)]
    (line,) = routes_figure(items, DARK)["data"]
    assert line["x"] == ["r 4", "r 4, lr ratio 16"]
    assert line["error_y"]["arrayminus"] == [None, None]
    assert line["error_y"]["array"] == pytest.approx([0.2, 0.2])


def test_a_cell_is_one_configuration_a_seed() -> None:
    cell = DecidingCell("lora", 4, 8.0, 1e-3, 1.0, (3, 5))
    assert [run["seed"] for run in cell.configurations] == [3, 5]
