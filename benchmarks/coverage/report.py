"""The report: what is wanted and whether it is met, then every count."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.coverage.counts import QUANTITIES, count, verdicts
from benchmarks.coverage.routes import RouteWorld
from benchmarks.coverage.wanted import Before, Readings, judge, percent
from benchmarks.coverage.worlds import World

BEFORE = Path(__file__).with_name("before.json")
BASE, BASE_ROUTES = World(name=""), RouteWorld(name="")
VERDICTS = ("equivalent", "alpha_better", "lr_better", "undecided", "mixed", "not_enough_data")
MET = {True: "met", False: "**not met**", None: "not measured"}

INTRODUCTION = """\
# Do the intervals cover what they promise?

Written by `python -m benchmarks coverage --full --write-docs`; not by hand. Sweeps are planted whose truth is
known, read by the public functions of `lora_alpha.analysis`, and the answers compared with the truth.

- **World**: one kind of sweep. Unless its line says otherwise: ranks 1 … 64 (7), an octave grid at a random
  offset, 3 seeds, a parabola, p = ½, C = 128, loss 0.5 at the minimum and 0.03 more one octave away; *rel* is
  the standard deviation of one run divided by that rise, 0.3. Ten worlds are drawn by SHA-256 of the commit
  that holds the estimator.
- **Coverage**: share of the intervals given that hold the truth, with its exact 95 % interval (Clopper &
  Pearson). Of α* and of the basin one rank, and one end, is drawn in each replicate: trials are independent.
- **Truth**: where seeds shift the optimum, α* is the minimum of the loss that is expected over seeds (the α
  at which one more run, with a seed of its own, loses least), not the mean of the seeds' minima; C is that
  of these minima. Where optima scatter about the law, p and C are the law's, α* the rank's own. A bent law
  has no p and no C. The basin holds every α whose expected loss is within 2 % of the least; an end beyond
  the grid or a cliff is not asked for.
- **Width** and **rmse** are octaves of α, but for p. *No interval*: share of replicates without one.
  *Before*: the vertex of three neighbouring cells with a jackknife over seeds, which this estimator replaced
  (100 replicates).
"""


def report(worlds: Sequence[World | RouteWorld], readings: Readings, before: Before, *, title: str) -> str:
    """All of it, in Markdown."""
    return "\n".join(
        [
            INTRODUCTION,
            f"{title}\n",
            *wanted_lines(worlds, readings, before),
            *(line for quantity in QUANTITIES for line in _quantity(worlds, readings, before, quantity)),
            *_bounds(worlds, readings),
            *_routes(worlds, readings, before),
            *_features(worlds),
        ]
    )


def wanted_lines(worlds: Sequence[World | RouteWorld], readings: Readings, before: Before) -> list[str]:
    """One line for each wanted figure."""
    figures = judge(worlds, readings, before)
    return ["## Wanted\n", *(f"- {each.sentence}: {MET[each.met]} ({each.found})" for each in figures), ""]


def before_of(worlds: Sequence[World | RouteWorld], readings: Readings) -> Before:
    """What is kept of an estimator: by world and quantity asked, given, covered, width and rmse."""
    kept: Before = {}
    for world in worlds:
        found = {key: count(readings[world.name], key) for key in QUANTITIES}
        kept[world.name] = {
            key: [each.asked, each.given, each.covered, _rounded(each.width), _rounded(each.rmse)]
            for key, each in found.items()
            if each is not None
        }
        named = verdicts(readings[world.name], "verdict")
        if named:
            kept[world.name]["verdicts"] = [named[verdict] for verdict in VERDICTS]
    return kept


def write_before(kept: Before, path: Path = BEFORE) -> None:
    """A line for each world."""
    lines = ",\n".join(
        f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(found)}" for name, found in kept.items()
    )
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def read_before(path: Path = BEFORE) -> Before:
    """Empty where nothing was kept."""
    kept: Before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept


def _quantity(
    worlds: Sequence[World | RouteWorld], readings: Readings, before: Before, quantity: str
) -> list[str]:
    rows = []
    for world in worlds:
        found = count(readings[world.name], quantity)
        if found is None:
            continue
        was = before.get(world.name, {}).get(quantity)
        old = ["–", "–"]
        if was is not None:
            _, given, covered, width = was[:4]
            old = [percent(covered / given) if given and covered is not None else "–", _number(width)]
        low, high = found.interval
        rows.append(
            [
                world.name,
                f"{found.covered} of {found.given}",
                percent(found.coverage),
                f"{100 * low:.1f}–{100 * high:.1f}" if found.given else "–",
                _number(found.width),
                _number(found.rmse),
                percent(1 - found.given / found.asked),
                *old,
            ]
        )
    head = ["world", "covered", "coverage", "95 %", "width", "rmse", "no interval", "before", "width before"]
    return [
        f"## {QUANTITIES[quantity].capitalize() if quantity == 'basin' else QUANTITIES[quantity]}\n",
        *_table(head, rows),
    ]


def _bounds(worlds: Sequence[World | RouteWorld], readings: Readings) -> list[str]:
    """Ranges of censored optima, and bends that were found."""
    rows = []
    for world in worlds:
        found = [reading for reading in readings[world.name] if "bounds" in reading]
        number, held = (sum(reading["bounds"][index] for reading in found) for index in (0, 1))
        bends = [reading["bends"] for reading in found if reading["bends"] is not None]
        if found:
            share = percent(sum(bends) / len(bends)) if bends else "–"
            rows.append([world.name, f"{held} of {number}" if number else "–", share])
    return [
        "## Bounds of optima at an edge or a cliff, and bends found\n",
        *_table(["world", "hold", "bends"], rows),
    ]


def _routes(worlds: Sequence[World | RouteWorld], readings: Readings, before: Before) -> list[str]:
    rows = []
    for world in worlds:
        if not isinstance(world, RouteWorld):
            continue
        found = verdicts(readings[world.name], "verdict")
        overall = verdicts(readings[world.name], "overall")
        was = before.get(world.name, {}).get("verdicts")
        rows.append(
            [
                world.name.removeprefix("routes: "),
                {"": "neither", "alpha": "α", "lr": "η"}[world.winner],
                *(str(found[verdict]) for verdict in VERDICTS if verdict != "mixed"),
                f"{overall['alpha_better']} / {overall['lr_better']}",
                f"{was[1]} / {was[2]}" if was else "–",
            ]
        )
    head = ["world", "better", *(name.replace("_", " ") for name in VERDICTS if name != "mixed")]
    head += ["overall α / η", "α / η before (of 100)"]
    return ["## α against η\n", *_table(head, rows)]


def _features(worlds: Sequence[World | RouteWorld]) -> list[str]:
    """In what each world differs from the one that all start from."""
    rows = []
    for world in worlds:
        base = BASE if isinstance(world, World) else BASE_ROUTES
        own = [
            f"{field.name} {value:.3g}" if isinstance(value, float) else f"{field.name} {value}"
            for field in dataclasses.fields(world)
            if field.name != "name" and (value := getattr(world, field.name)) != getattr(base, field.name)
        ]
        rows.append([world.name, "; ".join(own) or "as above"])
    return ["## Worlds\n", *_table(["world", "features"], rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
