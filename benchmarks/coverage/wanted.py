"""What is wanted of the counts, and whether it is met."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from benchmarks.coverage.counts import QUANTITIES, Count, clopper_pearson, count, verdicts
from benchmarks.coverage.readings import Reading
from benchmarks.coverage.routes import RouteWorld
from benchmarks.coverage.worlds import World

NAMED = 20  # so many worlds are named in a line
WINNERS = ("alpha_better", "lr_better")
SILENT = ("undecided", "not_enough_data")

Readings = dict[str, list[Reading]]
Before = dict[str, dict[str, list[float | None]]]


@dataclass(frozen=True)
class Wanted:
    """One figure: what is wanted, whether it is so, and what was found."""

    sentence: str
    met: bool | None
    found: str


@dataclass(frozen=True)
class Pair:
    """One quantity in one world."""

    world: World
    quantity: str
    count: Count

    @property
    def name(self) -> str:
        """World and quantity, for people."""
        return f"{self.world.name}: {QUANTITIES[self.quantity]} {percent(self.count.coverage)}"


def judge(worlds: Sequence[World | RouteWorld], readings: Readings, before: Before) -> list[Wanted]:
    """Every wanted figure. ``met`` is None where nothing was measured that it is about."""
    surfaces = [world for world in worlds if isinstance(world, World) and readings[world.name]]
    routes = [world for world in worlds if isinstance(world, RouteWorld) and readings[world.name]]
    pairs = [
        Pair(world, quantity, found)
        for world in surfaces
        for quantity in QUANTITIES
        if (found := count(readings[world.name], quantity)) is not None
    ]
    return [
        _no_errors(readings),
        _near_nominal(pairs),
        *(_mean_coverage([pair for pair in pairs if pair.quantity == key], key) for key in QUANTITIES),
        _none_low(pairs),
        _narrower(pairs, before),
        *(
            _finer_is_no_worse([pair for pair in pairs if pair.quantity == key], key)
            for key in ("p", "C", "alpha")
        ),
        *_false_winners(routes, readings),
        _answers(pairs, routes, readings),
    ]


def percent(share: float | None) -> str:
    """A share for people."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _no_errors(readings: Readings) -> Wanted:
    faults = [
        f"{name}: {reading['error']}"
        for name, found in readings.items()
        for reading in found
        if "error" in reading
    ]
    return Wanted("no replicate ends with an error", not faults, _list(faults))


def _near_nominal(pairs: Sequence[Pair]) -> Wanted:
    """Pairs without one interval count against it, unless the sweep is one that need not answer."""
    judged = [pair for pair in pairs if pair.count.given or pair.world.must_answer]
    good = [
        pair
        for pair in judged
        if pair.count.given and pair.count.interval[0] <= 0.97 and pair.count.interval[1] >= 0.93
    ]
    far = [pair.name for pair in judged if pair not in good]
    return Wanted(
        "the 95 % binomial interval of the coverage meets 93–97 % in ≥ 95 % of (world, quantity) pairs",
        len(good) >= 0.95 * len(judged) if judged else None,
        f"{len(good)} of {len(judged)}; not: {_list(far)}",
    )


def _mean_coverage(pairs: Sequence[Pair], quantity: str) -> Wanted:
    shares = [pair.count.coverage for pair in pairs if pair.count.coverage is not None]
    mean = fmean(shares) if shares else None
    return Wanted(
        f"mean coverage of {QUANTITIES[quantity]} over worlds is 94–96 %",
        None if mean is None else 0.94 <= mean <= 0.96,
        f"{percent(mean)} over {len(shares)} worlds",
    )


def _none_low(pairs: Sequence[Pair]) -> Wanted:
    low = [pair.name for pair in pairs if pair.count.coverage is not None and pair.count.coverage < 0.9]
    judged = any(pair.count.given for pair in pairs)
    return Wanted("no coverage is below 90 %", not low if judged else None, _list(low))


def _narrower(pairs: Sequence[Pair], before: Before) -> Wanted:
    ratios = {}
    for pair in pairs:
        was = before.get(pair.world.name, {}).get("p")
        if pair.quantity != "p" or was is None or pair.count.width is None:
            continue
        _, given, covered, width = was[:4]
        if given and covered is not None and width and covered >= 0.98 * given:
            ratios[pair.world.name] = pair.count.width / width
    wide = [f"{name}: {ratio:.2f}" for name, ratio in ratios.items() if ratio > 0.5]
    mean = f"on average {fmean(ratios.values()):.2f}" if ratios else "–"
    return Wanted(
        "the interval of p is at most half as wide as before where that covered ≥ 98 %",
        not wide if ratios else None,
        f"{mean} over {len(ratios)} worlds; wider: {_list(wide)}",
    )


def _finer_is_no_worse(pairs: Sequence[Pair], quantity: str) -> Wanted:
    families: dict[World, list[tuple[float, float, Pair]]] = defaultdict(list)
    for pair in pairs:
        if pair.count.rmse is not None and pair.count.rmse_error is not None:
            family = dataclasses.replace(pair.world, name="", spacing=0.0)
            families[family].append((pair.count.rmse, pair.count.rmse_error, pair))
    worse, compared = [], 0
    for members in families.values():
        for coarse, fine in pairwise(sorted(members, key=lambda member: -member[2].world.spacing)):
            compared += 1
            error = (coarse[1] ** 2 + fine[1] ** 2) ** 0.5
            if fine[0] - coarse[0] > 2.0 * error:
                worse.append(f"{fine[2].world.name}: {coarse[0]:.4f} → {fine[0]:.4f} (± {error:.4f})")
    return Wanted(
        f"the rmse of {QUANTITIES[quantity]} does not rise by more than two standard errors on a finer grid",
        not worse if compared else None,
        f"{compared} pairs of grids; worse: {_list(worse)}",
    )


def winners(readings: Sequence[Reading]) -> int:
    """How often a route was named the winner: on one rank or on all, whichever is more."""
    alone, overall = verdicts(readings, "verdict"), verdicts(readings, "overall")
    return sum(max(alone[verdict], overall[verdict]) for verdict in WINNERS)


def _false_winners(routes: Sequence[RouteWorld], readings: Readings) -> list[Wanted]:
    shares, far = [], []
    for world in routes:
        if world.winner:
            continue
        number, named = len(readings[world.name]), winners(readings[world.name])
        shares.append(named / number)
        if clopper_pearson(named, number)[0] > 0.03:
            far.append(f"{world.name}: {percent(named / number)}")
    mean = fmean(shares) if shares else None
    return [
        Wanted(
            "α against η: a winner where there is none in ≤ 3 % on average over worlds",
            None if mean is None else mean <= 0.03,
            f"{percent(mean)} over {len(shares)} worlds",
        ),
        Wanted(
            "and in each world the lower end of the 95 % interval is ≤ 3 %",
            not far if shares else None,
            _list(far),
        ),
    ]


def _answers(pairs: Sequence[Pair], routes: Sequence[RouteWorld], readings: Readings) -> Wanted:
    asked = [pair for pair in pairs if pair.world.must_answer]
    silent = [
        f"{pair.world.name}: {QUANTITIES[pair.quantity]} {percent(1 - pair.count.given / pair.count.asked)}"
        for pair in asked
        if pair.count.given < 0.9 * pair.count.asked
    ]
    for world in routes:
        found = verdicts(readings[world.name], "verdict")
        share = sum(found[verdict] for verdict in SILENT) / max(found.total(), 1)
        if world.must_answer and share > 0.1:
            silent.append(f"{world.name}: {percent(share)}")
    return Wanted(
        "no interval, or undecided, in ≤ 10 % of replicates (≥ 3 ranks, ≥ 3 seeds, an inner optimum, "
        "≤ 10 % of runs missing)",
        not silent if asked or routes else None,
        _list(silent),
    )


def _list(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return "; ".join(items[:NAMED]) + more if items else "none"
