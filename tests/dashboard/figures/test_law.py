from __future__ import annotations

from typing import Any

from dashboard.figures.law import law_figure
from dashboard.figures.style import LIGHT
from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.law import fit_laws
from lora_alpha.analysis.rules import RULES
from lora_alpha.wire.analysis import Law


def laws(*, ranks: tuple[int, ...] = (1, 4, 16), shift: float = 6.0) -> list[Law]:
    """Curves whose best α is 2^shift·√r, on a grid from 2^4 to 2^9."""
    runs = [
        RunOutcome(
            "lora", rank, 2.0**k, 2.0**k / rank, 2e-4, seed, "finished",
            1 + 0.1 * (k - shift - rank.bit_length() / 2 + 0.5) ** 2 + 0.001 * seed,
        )
        for rank in ranks
        for k in range(4, 10)
        for seed in (0, 1, 2)
    ]  # fmt: skip
    return fit_laws(make_cells(runs))


def named(figure: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if part in trace["name"]]


def test_without_an_optimum_the_figure_says_what_is_missing() -> None:
    figure = law_figure([], LIGHT)
    assert figure["data"] == []
    assert "at least three" in figure["layout"]["annotations"][0]["text"]


def test_points_band_basins_and_references_are_drawn() -> None:
    figure = law_figure(laws(), LIGHT, rules=RULES)
    assert named(figure, "best per rank")[0]["x"] == [1, 4, 16]
    for part in ("95 % band", "within 2 %", "slope ½", "α = 2r", "α = 256√r", "·r^0.5"):
        assert len(named(figure, part)) == 1, part
    assert "tickvals" in figure["layout"]["yaxis"]


def test_censored_optima_are_hollow_and_say_so() -> None:
    figure = law_figure(laws(shift=12.0), LIGHT)
    (censored,) = named(figure, "censored")
    assert censored["marker"]["symbol"].endswith("-open")
    assert censored["text"] == ["↑"] * 3
    assert "extend the grid" in censored["hovertext"][0]
    assert named(figure, "band") == []


def test_references_can_be_hidden() -> None:
    assert named(law_figure(laws(), LIGHT), "slope") == []


def test_many_laws_stand_side_by_side_with_one_legend_entry_each() -> None:
    figure = law_figure([laws()[0]] * 3, LIGHT, names=["one", "two", "three"])
    assert named(figure, "95 % band") == named(figure, "within 2 %") == []
    assert [len([t for t in named(figure, name) if t["showlegend"]]) for name in ("one", "two", "three")] == [
        1
    ] * 3
    first, middle, last = (named(figure, f"{name}: best")[0]["x"][0] for name in ("one", "two", "three"))
    assert first < middle == 1 < last
