from __future__ import annotations

import dataclasses
from typing import Any

from dashboard.figures.horizon import NOTHING, horizon_figure
from dashboard.figures.style import LIGHT
from dashboard.tabs import horizon as tab
from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.horizon import Training, laws_over_horizon
from lora_alpha.wire.analysis import Horizon, Horizons


def planted(schedule: str = "constant", warmup: int = 0) -> Horizon:
    """p rises from 0 over 0.5 to 1 at steps 10, 20 and 40."""
    at = {
        step: make_cells(
            RunOutcome(
                "lora", rank, 2.0**k, 1.0, 2e-4, seed, "finished",
                1 + 0.1 * (k - 6 - p * (rank.bit_length() - 1)) ** 2 + 0.001 * ((seed + rank + k) % 3),
            )
            for rank in (1, 2, 4, 8)
            for k in range(4, 12)
            for seed in range(3)
        )
        for step, p in ((10, 0.0), (20, 0.5), (40, 1.0))
    }  # fmt: skip
    (horizon,) = laws_over_horizon(at, Training(schedule, warmup=warmup, steps=40))
    return horizon


def lines(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["mode"] == "lines+markers"]


def bands(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace.get("fill") == "toself"]


def answer(*horizons: Horizon, **more: Any) -> Horizons:
    return Horizons(sweep_id="s", objective="final", steps=[10, 20, 40], horizons=list(horizons), **more)


def test_p_and_c_are_drawn_over_the_steps_with_their_bands() -> None:
    horizon = planted()
    figure = horizon_figure([horizon], LIGHT)
    p, c = lines(figure)
    assert p["x"] == c["x"] == [10, 20, 40]
    assert p["y"] == [point.exponent for point in horizon.points]
    assert c["y"] == [point.coefficient for point in horizon.points]
    assert (p["yaxis"], c["yaxis"]) == ("y", "y2")
    of_p, of_c = bands(figure)
    assert of_p["x"] == of_c["x"] == [10, 20, 40, 40, 20, 10]
    highs = [point.exponent_high for point in horizon.points]
    lows = [point.exponent_low for point in horizon.points]
    assert of_p["y"] == highs + lows[::-1]
    (half,) = figure["layout"]["shapes"]
    assert half["y0"] == half["y1"] == 0.5
    assert figure["layout"]["xaxis"]["title"]["text"] == "step"


def test_points_that_are_no_laws_of_shorter_runs_are_hollow() -> None:
    def symbols(**training: Any) -> list[str]:
        return lines(horizon_figure([planted(**training)], LIGHT))[0]["marker"]["symbol"]

    assert symbols() == ["circle"] * 3
    assert symbols(schedule="cosine") == ["circle-open", "circle-open", "circle"]
    assert symbols(warmup=10) == ["circle-open", "circle", "circle"]


def test_many_horizons_have_lines_alone_and_names() -> None:
    three = [dataclasses.replace(planted(), method=name) for name in ("lora", "dora", "vera")]
    figure = horizon_figure(three, LIGHT)
    assert bands(figure) == []
    assert [trace["name"] for trace in lines(figure) if trace["showlegend"]] == ["lora", "dora", "vera"]


def test_without_a_law_the_figure_says_what_is_missing() -> None:
    assert horizon_figure([], LIGHT)["layout"]["annotations"][0]["text"] == NOTHING


def test_the_tab_says_the_sentence_its_conditions_and_why_there_is_none() -> None:
    text, figure, tables = tab.draw(answer(planted("cosine"), warnings=["η decays over all"]), {}, LIGHT)
    assert "p rises with training" in str(text)
    assert "η decays over all" in str(text)
    assert figure["data"]
    for part in ("step", "to come", "η decays"):
        assert part in str(tables)
    text, figure, tables = tab.draw(answer(reasons=["1 step is recorded"]), {}, LIGHT)
    assert "1 step is recorded" in str(text)
    assert (figure["data"], tables) == ([], [])
