"""The planted worlds are what they say, and readings add up however often a run was killed."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.coverage import main
from benchmarks.coverage.catalogue import ROUTES, SURFACES, drawn_worlds, worlds_of
from benchmarks.coverage.counts import clopper_pearson, count
from benchmarks.coverage.harness import read_worlds
from benchmarks.coverage.readings import covered, given, read
from benchmarks.coverage.report import before_of, read_before, report, write_before
from benchmarks.coverage.routes import RouteWorld, plant_routes
from benchmarks.coverage.shapes import SHAPES, basin
from benchmarks.coverage.wanted import judge
from benchmarks.coverage.worlds import World, plant
from lora_alpha.analysis.optimum import BASIN

COMMIT = "0" * 40
BY_NAME = {world.name: world for world in SURFACES}
FEW = [BY_NAME["octave grid"], BY_NAME["one optimum beyond"], ROUTES[0]]
STEP = 2e-3


def cheap(world, replicate):
    """A reading that costs nothing, and differs by world and replicate."""
    return {"replicate": replicate, "verdict": f"{world.name} {replicate}"}


def quiet(world: World) -> World:
    """The same world, all but without noise of single runs."""
    return dataclasses.replace(world, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_0_at_its_optimum_and_rises_by_1_an_octave_away(shape):
    z = np.linspace(-3, 3, 1201)
    y = SHAPES[shape](z)
    assert SHAPES[shape](np.zeros(1))[0] == pytest.approx(0, abs=1e-12)
    assert np.all(y[np.abs(z) > 1e-6] > 0)
    assert SHAPES[shape](np.array([-1.0, 1.0])).mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "shape", ["smooth asymmetry", "kink", "Morse", "right side ×6", "both sides saturate"]
)
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_optimum_and_basin_are_those_of_the_mean_over_many_seeds(shape, shift):
    depth, floor, width = 0.07, 0.5, 1.3
    found = basin(shape, width=width, shift=shift, depth=depth, floor=floor, tolerance=BASIN)

    z = np.arange(-2.5, 2.5, STEP)
    shifts, weights = np.polynomial.hermite_e.hermegauss(200)
    curves = SHAPES[shape]((z[:, None] - shift * shifts) / width)
    loss = floor + depth * curves @ (weights / weights.sum())
    within = z[loss <= (1 + BASIN) * loss.min()]
    assert found.optimum == pytest.approx(z[loss.argmin()], abs=0.03 if shape == "kink" else 4 * STEP)
    for end, slow in ((found.low, within[0]), (found.high, within[-1])):
        assert end == pytest.approx(slow, abs=0.01)


@pytest.mark.parametrize(
    "name", ["octave grid", "width ×2", "curvature ×8", "bend", "cliff at 0.3", "p 0, rel 0.1"]
)
def test_the_planted_truth_is_that_of_its_cells_on_a_fine_grid_without_noise(name):
    world = dataclasses.replace(quiet(BY_NAME[name]), spacing=1 / 128, seeds=1)
    cells, truth = plant(world, np.random.default_rng(3))
    for rank, place in truth.places.items():
        curve = [cell for cell in cells if cell.rank == rank and cell.measured]
        x, y = (
            np.array(values) for values in zip(*[(math.log2(c.alpha), c.mean) for c in curve], strict=True)
        )
        assert place.inside
        assert x[y.argmin()] == pytest.approx(place.optimum, abs=0.01)
        within = x[y <= (1 + BASIN) * y.min()]
        if place.basin_low is not None:
            assert within[0] == pytest.approx(place.basin_low, abs=0.01)
        if place.basin_high is not None:
            assert within[-1] == pytest.approx(place.basin_high, abs=0.01)
        if truth.exponent is not None:
            law = truth.log2_coefficient + truth.exponent * math.log2(rank)
            assert place.optimum == pytest.approx(law, abs=1e-6)


def test_the_truth_over_shifting_seeds_is_the_minimum_of_their_mean_loss():
    features = {"noise": "shift per curve", "shape": "smooth asymmetry", "shift": 0.5, "seeds": 600}
    world = World(name="w", ranks=(1, 2), rel=1e-9, spacing=0.25, **features)
    cells, truth = plant(world, np.random.default_rng(5))
    curve = [(math.log2(cell.alpha), cell.mean) for cell in cells if cell.rank == 1]
    x, y = (np.array(values) for values in zip(*curve, strict=True))
    near = np.abs(x - x[y.argmin()]) < 1
    fine = np.linspace(x[near][0], x[near][-1], 2001)
    lowest = fine[np.polyval(np.polyfit(x[near] - 7, y[near], 4), fine - 7).argmin()]
    assert truth.places[1].optimum == pytest.approx(lowest, abs=0.04)
    assert truth.places[1].optimum == pytest.approx(7 - 0.7 * 0.5**2 / 2, abs=1e-3)  # by hand


def test_a_run_scatters_by_rel_of_the_rise():
    for noise in ("normal", "heavy tails", "correlated along α"):
        world = World(name="w", noise=noise, seeds=50, spacing=0.25)
        (cells, _), (calm, _) = (plant(each, np.random.default_rng(1)) for each in (world, quiet(world)))
        away = [
            cell.losses[seed] - calm[i].losses[seed] for i, cell in enumerate(cells) for seed in cell.losses
        ]
        assert np.std(away) == pytest.approx(0.3 * 0.03, rel=0.1), noise


def test_seeds_tilt_shift_and_lift_their_curves_as_a_whole():
    def spread(noise, **changes):
        cells, _ = plant(
            World(name="w", noise=noise, rel=1e-9, seeds=100, **changes), np.random.default_rng(2)
        )
        return cells

    for noise in ("shift per seed", "shift per curve"):
        lowest = {}
        for cell in spread(noise, spacing=1 / 16, ranks=(1, 64), shift=0.2):
            for seed, loss in cell.losses.items():
                best = lowest.get((cell.rank, seed), (math.inf, 0.0))
                lowest[cell.rank, seed] = min(best, (loss, math.log2(cell.alpha)))
        first, last = (np.array([lowest[rank, seed][1] for seed in range(100)]) for rank in (1, 64))
        assert first.std() == pytest.approx(0.2, rel=0.15)
        assert first.mean() == pytest.approx(7.0, abs=0.05)
        assert (
            np.corrcoef(first, last)[0, 1] > 0.9
            if noise == "shift per seed"
            else abs(np.corrcoef(first, last)[0, 1]) < 0.3
        )


@pytest.mark.parametrize(
    ("noise", "near", "far"),
    [  # deviation of a run at α* and four octaves away, in rises of an octave; rel is 0.1, depth is floor / 5
        ("normal", 0.1, 0.1),
        ("proportional to loss", 0.1, 0.1 * (1 + 16 / 5)),
        ("growing with distance", 0.05, 0.25),
        ("level per seed", 0.1 * math.sqrt(1 + 3**2), 0.1 * math.sqrt(1 + 3**2)),
        ("tilt per seed", 0.1, math.hypot(0.1, 0.3 * 4)),
        ("tilt per curve", 0.1, math.hypot(0.1, 0.3 * 4)),
    ],
)
def test_noise_grows_away_from_the_optimum_as_it_says(noise, near, far):
    world = World(name="w", noise=noise, rel=0.1, seeds=1500, ranks=(1, 2), exponent=0.0, depth=0.1)
    cells, _ = plant(world, np.random.default_rng(4))
    x = np.array([math.log2(cell.alpha) for cell in cells]) - 7.0
    std = np.array([cell.std for cell in cells]) / 0.1
    wide, narrow = np.abs(x).argmax(), np.abs(x).argmin()
    share = (abs(x[wide]) - abs(x[narrow])) / 4.0
    if noise in ("normal", "level per seed"):
        assert std == pytest.approx(near, rel=0.1)
    else:
        assert std[narrow] == pytest.approx(near, rel=0.1) or abs(x[narrow]) > 0.1
        assert near * 1.2 < std[wide] < far * 1.1
        assert std[wide] > share * far * 0.7


@pytest.mark.parametrize(
    ("kind", "share", "gone"), [("failed", 0.1, 21), ("pending", 0.02, 4), ("pending tail", 0.1, 21)]
)
def test_runs_are_missing_as_asked(kind, share, gone):
    world = World(name="w", missing=share, missing_kind=kind)
    cells, _ = plant(world, np.random.default_rng(0))
    whole = sum(cell.n + cell.num_failed + cell.num_pending for cell in cells)
    assert whole == 210
    assert sum(cell.num_pending if kind.startswith("pending") else cell.num_failed for cell in cells) == gone
    if kind == "pending tail":
        lacking = {(cell.rank, *sorted({0, 1, 2} - set(cell.losses))) for cell in cells if cell.num_pending}
        assert lacking == {(32, 2), (64, 2)} or lacking == {(16, 2), (32, 2), (64, 2)}


def test_a_seed_is_missing_at_half_of_the_ranks():
    cells, _ = plant(BY_NAME["a seed missing at half of the ranks"], np.random.default_rng(0))
    ranks = {cell.rank for cell in cells if set(cell.losses) == {0, 1}}
    assert len(ranks) == 3
    assert all(set(cell.losses) == ({0, 1} if cell.rank in ranks else {0, 1, 2}) for cell in cells)


@pytest.mark.parametrize(
    ("name", "beyond"),
    [("one optimum beyond", [64]), ("two optima beyond", [32, 64]), ("one optimum below", [1])],
)
def test_optima_beyond_the_grid_are_those_that_were_asked_for(name, beyond):
    for replicate in range(5):
        _, truth = plant(BY_NAME[name], np.random.default_rng(replicate))
        assert [rank for rank, place in truth.places.items() if not place.inside] == beyond


@pytest.mark.parametrize("world", [BY_NAME["two octaves"], BY_NAME["quarter octave"], BY_NAME["uneven grid"]])
def test_grids_reach_beyond_every_optimum_at_any_offset(world):
    firsts = []
    for replicate in range(20):
        cells, truth = plant(world, np.random.default_rng(replicate))
        x = sorted({math.log2(cell.alpha) for cell in cells})
        firsts.append(x[0])
        optima = [place.optimum for place in truth.places.values()]
        assert x[0] <= min(optima) - 1.9
        assert x[-1] >= max(optima) + 1.9
        if not world.uneven:
            assert np.allclose(np.diff(x), world.spacing)
    assert max(firsts) - min(firsts) > 0.7 * world.spacing


def test_only_the_product_counts_where_no_route_is_better():
    world = RouteWorld(name="w", rel=1e-12, lr_spacing=2.0)
    by_product = {}
    for cell in plant_routes(world, np.random.default_rng(0)):
        by_product.setdefault(round(math.log2(cell.alpha * cell.lr), 6), []).append(cell.mean)
    assert max(len(means) for means in by_product.values()) == 2
    assert all(max(means) == pytest.approx(min(means)) for means in by_product.values())


@pytest.mark.parametrize(("winner", "better"), [("alpha", -1), ("lr", 1)])
def test_a_winner_is_lower_by_its_gain_at_the_optimum(winner, better):
    world = RouteWorld(name="w", rel=1e-12, winner=winner, gain=0.1, alpha_spacing=0.01, lr_spacing=0.01)
    cells = plant_routes(world, np.random.default_rng(0))
    alpha = min(cell.mean for cell in cells if cell.alpha > 8.0)
    lr = min(cell.mean for cell in cells if cell.lr > 1e-5)
    assert alpha - lr == pytest.approx(better * 0.05, rel=0.02)


def test_a_route_ends_short_of_or_beyond_its_optimum():
    for beyond in (-1.2, 2.0):
        world = RouteWorld(name="w", rel=1e-12, lr_beyond=beyond, alpha_spacing=0.01)
        for replicate in range(5):
            cells = plant_routes(world, np.random.default_rng(replicate))
            alphas = [cell for cell in cells if cell.lr == 1e-5]
            optimum = math.log2(min(alphas, key=lambda cell: cell.mean).alpha / 8.0)
            reach = max(math.log2(cell.lr / 1e-5) for cell in cells)
            gap = reach - optimum - beyond
            assert -1.01 < gap < 0.01 if beyond < 0 else -0.01 < gap < 1.01


def test_worlds_are_many_different_and_ten_of_them_nobodys_choice():
    worlds = worlds_of(COMMIT)
    assert len({world.name for world in worlds}) == len(worlds)
    assert len(SURFACES) >= 40
    drawn = drawn_worlds(COMMIT)
    assert drawn == drawn_worlds(COMMIT)
    assert len(drawn) == 10
    assert len({dataclasses.replace(world, name="") for world in drawn}) == 10
    assert {dataclasses.replace(world, name="") for world in drawn_worlds("1" * 40)}.isdisjoint(
        dataclasses.replace(world, name="") for world in drawn
    )


def test_every_world_can_be_planted_and_has_something_to_ask_for():
    for world in worlds_of(COMMIT):
        rng = np.random.default_rng(0)
        if isinstance(world, RouteWorld):
            assert plant_routes(world, rng)
        else:
            _, truth = plant(world, rng)
            assert any(place.inside for place in truth.places.values())


def law_of(optima, **fit):
    """What the analysis might say, in public names."""
    named = {
        optimum["rank"]: SimpleNamespace(censored="", **{key: optimum[key] for key in optimum})
        for optimum in optima
    }
    return [SimpleNamespace(fit=SimpleNamespace(bends=True, **fit), optima=tuple(named.values()))]


def test_a_reading_is_the_truth_beside_what_the_analysis_says(monkeypatch):
    world, replicate = BY_NAME["octave grid"], 3
    optima = [
        {
            "rank": rank,
            "value": 2.0**rank,
            "low": 2.0 ** (rank - 1),
            "high": 2.0 ** (rank + 2),
            "basin_low": 2.0 ** (rank + 0.1),
            "basin_low_from": 2.0 ** (rank + 0.2),
            "basin_low_to": 2.0 ** (rank + 0.3),
            "basin_high": 2.0 ** (rank + 0.4),
            "basin_high_from": 2.0 ** (rank + 0.5),
            "basin_high_to": 2.0 ** (rank + 0.6),
        }  # fmt: skip
        for rank in world.ranks
    ]
    fit = {"exponent": 0.6, "exponent_low": 0.5, "exponent_high": 0.7}
    fit |= {"coefficient": 2.0, "coefficient_low": 4.0, "coefficient_high": None}
    monkeypatch.setattr("benchmarks.coverage.readings.fit_laws", lambda cells: law_of(optima, **fit))
    ends = set()
    for replicate in range(8):
        found = read(world, replicate)
        assert found["p"] == [0.5, 0.6, 0.5, 0.7]
        assert found["C"] == [7.0, 1.0, 2.0, None]
        truth, rank, low, high = found["alpha"]
        assert truth == 7 + 0.5 * math.log2(rank)
        assert (low, high) == (rank - 1, rank + 2)
        half = math.sqrt(0.01 / 0.03)
        way = -1 if found["basin"][0] < truth else 1
        assert found["basin"][0] == pytest.approx(truth + way * half)
        assert np.array(found["basin"][1:]) - rank == pytest.approx(
            [0.1, 0.2, 0.3] if way < 0 else [0.4, 0.5, 0.6]
        )
        ends.add(way)
        right = sum(rank - 1 <= 7 + 0.5 * math.log2(rank) <= rank + 2 for rank in world.ranks)
        errors = sum((rank - 7 - 0.5 * math.log2(rank)) ** 2 for rank in world.ranks)
        assert found["optima"] == [7, 7, right, pytest.approx(errors)]
        assert found["bends"] is True
    assert ends == {-1, 1}


@pytest.mark.parametrize(
    ("four", "is_given", "is_covered"),
    [
        ([0.5, 0.6, 0.5, 0.7], True, True),
        ([0.5, 0.6, 0.51, 0.7], True, False),
        ([0.5, 0.4, 0.3, 0.49], True, False),
        ([0.5, 0.4, None, 0.7], False, False),
        ([0.5, None, None, None], False, False),
    ],
)
def test_an_interval_covers_with_both_ends(four, is_given, is_covered):
    assert (given(four), covered(four)) == (is_given, is_covered)


def test_a_replicate_is_the_same_whenever_it_is_read():
    assert read(FEW[0], 3) == read(FEW[0], 3)
    assert read(FEW[0], 3)["p"] != read(FEW[0], 4)["p"]
    assert read(FEW[0], 3)["p"] != read(dataclasses.replace(FEW[0], name="another"), 3)["p"]


def test_a_killed_run_goes_on_to_the_same_readings(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.coverage.harness.read", cheap)
    heard = []
    undisturbed = read_worlds(FEW, replicates=14, processes=0, out=tmp_path / "a", advance=heard.append)
    assert sum(heard) == 14 * len(FEW)

    out = tmp_path / "b"
    read_worlds(FEW, replicates=6, processes=0, out=out, advance=heard.append)
    torn = out / "octave grid.jsonl"
    torn.write_text(torn.read_text()[:-20])  # a kill in mid-line
    foreign = out / "one optimum beyond.jsonl"
    foreign.write_text(json.dumps({"world": "another"}) + "\n" + json.dumps({"replicate": 0}) + "\n")
    assert read_worlds(FEW, replicates=14, processes=0, out=out, advance=heard.append) == undisturbed
    again = []
    assert read_worlds(FEW, replicates=14, processes=0, out=out, advance=again.append) == undisturbed
    assert len((out / "octave grid.jsonl").read_text().splitlines()) == 15


def test_processes_read_what_one_reads(tmp_path):
    one, two = (
        read_worlds(ROUTES[:2], replicates=3, processes=number, out=tmp_path / str(number), advance=[].append)
        for number in (0, 2)
    )
    assert one == two


@pytest.mark.parametrize(
    ("hits", "number", "low", "high"),
    [
        (10, 10, 0.025 ** (1 / 10), 1.0),  # all: low^n = 2.5 %
        (0, 20, 0.0, 1 - 0.025 ** (1 / 20)),
        (95, 100, 0.8872, 0.9836),  # printed in many tables
        (0, 0, 0.0, 1.0),
    ],
)
def test_binomial_intervals_by_hand(hits, number, low, high):
    assert clopper_pearson(hits, number) == pytest.approx((low, high), abs=1e-4)


def test_counts_of_a_few_readings_by_hand():
    def reading(*four, optima):
        return {"p": list(four), "optima": optima, "alpha": list(four)}

    readings = [
        reading(0.5, 0.6, 0.4, 0.8, optima=[2, 2, 2, 0.02]),
        reading(0.5, 0.7, 0.6, 0.8, optima=[2, 2, 0, 0.18]),
        reading(0.5, 0.5, None, None, optima=[2, 0, 0, 0.0]),
        {"error": "ValueError: planted"},
    ]
    found = count(readings, "p")
    assert (found.asked, found.given, found.covered) == (3, 2, 1)
    assert found.width == pytest.approx(0.3)
    assert found.rmse == pytest.approx(math.sqrt((0.01 + 0.04) / 3))
    assert count(readings, "alpha").rmse == pytest.approx(math.sqrt((0.01 + 0.09) / 3))
    assert count(readings, "basin") is None


def fours(covered, number, *, width=0.1, error=0.01):
    """Readings of p of which so many intervals hold the truth."""
    return [
        {"p": [0.5, 0.5 + error, *((0.5, 0.5 + width) if index < covered else (0.6, 0.6 + width))]}
        for index in range(number)
    ]


@pytest.mark.parametrize(
    ("covered", "width", "error", "not_met"),
    [
        (95, 0.1, 0.01, []),
        (88, 0.1, 0.01, ["mean coverage of p", "no coverage is below"]),
        (80, 0.1, 0.01, ["the 95 % binomial", "mean coverage of p", "no coverage is below"]),
        (95, 0.11, 0.01, ["the interval of p is at most half"]),
    ],
)
def test_wanted_figures_are_met_or_not(covered, width, error, not_met):
    world = World(name="w")
    before = {"w": {"p": [100, 100, 99, 0.2, 0.01]}}
    figures = judge([world], {"w": fours(covered, 100, width=width, error=error)}, before)
    assert [
        f.sentence for f in figures if f.met is False and not any(f.sentence.startswith(s) for s in not_met)
    ] == []
    assert sum(figure.met is False for figure in figures) == len(not_met)


def test_a_finer_grid_that_is_worse_and_a_silent_one_are_found():
    worlds = [World(name="coarse", spacing=1.0), World(name="fine", spacing=0.5)]
    rng = np.random.default_rng(0)

    def readings(scale):
        return [{"p": [0.5, 0.5 + scale * noise, None, None]} for noise in rng.normal(size=100)]

    figures = judge(worlds, {"coarse": readings(0.01), "fine": readings(0.02)}, {})
    unmet = {figure.sentence.split(" ")[1] + figure.found for figure in figures if figure.met is False}
    assert any("worse: fine: 0.0" in found for found in unmet)
    assert any("coarse: p 100.0 %; fine: p 100.0 %" in found for found in unmet)
    figures = judge(worlds, {"coarse": readings(0.02), "fine": readings(0.01)}, {})
    assert not any("worse: fine" in figure.found for figure in figures)


def test_false_winners_are_found_and_true_ones_are_not_false():
    worlds = [RouteWorld(name="null"), RouteWorld(name="won", winner="alpha", gain=0.1)]
    named = [{"verdict": "alpha_better", "overall": "mixed"}] * 10 + [
        {"verdict": "equivalent", "overall": "equivalent"}
    ] * 90
    calm = [{"verdict": "equivalent", "overall": "equivalent"}] * 100
    figures = judge(worlds, {"null": named, "won": named}, {})
    assert sum(figure.met is False for figure in figures) == 2
    assert all(figure.met is not False for figure in judge(worlds, {"null": calm, "won": named}, {}))


def test_an_error_is_a_reading_and_is_told(monkeypatch):
    def breaks(cells):
        raise ValueError("planted")

    monkeypatch.setattr("benchmarks.coverage.readings.fit_laws", breaks)
    found = read(FEW[0], 0)
    assert found == {"replicate": 0, "error": "ValueError: planted"}
    figures = judge([FEW[0]], {FEW[0].name: [found]}, {})
    assert figures[0].met is False
    assert "planted" in figures[0].found


def test_the_report_holds_every_world_and_what_was_before(tmp_path):
    readings = read_worlds(FEW, replicates=3, processes=0, out=tmp_path, advance=[].append)
    kept = tmp_path / "before.json"
    write_before(before_of(FEW, readings), kept)
    assert read_before(kept)["octave grid"]["p"][:2] == [3, 3]
    text = report(FEW, readings, read_before(kept), title="Three")
    assert text.count("| octave grid |") == 6
    assert "| equal | neither |" in text


def test_a_name_that_no_world_has_lists_those_that_there_are(capsys, tmp_path):
    assert main(["--worlds", "nothing", "--commit", COMMIT, "--out", str(tmp_path)]) == 2
    assert "\noctave grid\n" in capsys.readouterr().out
