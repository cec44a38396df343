"""The list of planted worlds: named ones, and ten that a commit draws."""

from __future__ import annotations

import hashlib
import math
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.coverage.routes import RouteWorld
from benchmarks.coverage.shapes import SHAPES
from benchmarks.coverage.worlds import Missing, Noise, World

ROOT = Path(__file__).parents[2]
ESTIMATOR = tuple(
    f"lora_alpha/analysis/{name}.py"
    for name in (
        "curves",
        "shapes",
        "noise",
        "variants",
        "basin_fit",
        "surface",
        "optimum",
        "power_law",
        "law",
    )
)
DRAWN = 10
TEN_RANKS = tuple(2**k for k in range(10))

SURFACES: tuple[World, ...] = (
    # spacings
    World(name="octave grid"),
    World(name="two octaves", spacing=2.0),
    World(name="half octave", spacing=0.5),
    World(name="quarter octave", spacing=0.25),
    World(name="uneven grid", uneven=True),
    # sizes of noise and other laws
    World(name="rel 1", rel=1.0),
    World(name="rel 1, half octave", rel=1.0, spacing=0.5),
    World(name="p 0, rel 0.1", exponent=0.0, rel=0.1),
    World(name="p 0.3, ten ranks", exponent=0.3, ranks=TEN_RANKS),
    World(name="p 0.75, four ranks", exponent=0.75, ranks=(2, 8, 32, 128)),
    World(name="p 1, five ranks, deep", exponent=1.0, ranks=(1, 4, 16, 64, 256), depth=0.1),
    World(name="three ranks", ranks=(4, 16, 64)),
    # shapes
    World(name="smooth asymmetry, two octaves", shape="smooth asymmetry", rel=0.1, spacing=2.0),
    World(name="smooth asymmetry", shape="smooth asymmetry", rel=0.1),
    World(name="smooth asymmetry, quarter octave", shape="smooth asymmetry", rel=0.1, spacing=0.25),
    World(name="right side ×2, ten seeds", shape="right side ×2", seeds=10),
    World(name="right side ×4, rel 0.1", shape="right side ×4", rel=0.1),
    World(name="right side ×6", shape="right side ×6"),
    World(name="kink", shape="kink"),
    World(name="kink, half octave", shape="kink", spacing=0.5),
    World(name="soft V", shape="soft V"),
    World(name="quartic", shape="quartic"),
    World(name="power 1.5", shape="power 1.5"),
    World(name="right side saturates", shape="right side saturates", depth=0.06),
    World(name="both sides saturate", shape="both sides saturate", depth=0.1),
    World(name="logarithmic right side", shape="logarithmic right side"),
    World(name="shelf and wall", shape="shelf and wall", depth=0.06, rel=0.1),
    World(name="Morse", shape="Morse"),
    World(name="curvature ×8", curvature_growth=8.0),
    World(name="curvature ×8, rel 1", curvature_growth=8.0, rel=1.0),
    World(name="width ×2", width_growth=2.0),
    # noises
    World(name="heavy tails", noise="heavy tails"),
    World(name="noise proportional to loss", noise="proportional to loss", depth=0.1),
    World(name="noise growing with distance", noise="growing with distance"),
    World(name="noise correlated along α", noise="correlated along α"),
    World(name="level per seed, 5 % missing", noise="level per seed", missing=0.05),
    World(name="tilt per seed", noise="tilt per seed"),
    World(name="tilt per curve", noise="tilt per curve"),
    World(name="shift per seed", noise="shift per seed", shape="smooth asymmetry"),
    World(name="shift per curve", noise="shift per curve"),
    # seeds
    World(name="one seed", seeds=1),
    World(name="two seeds", seeds=2),
    World(name="two seeds, three ranks, rel 1", seeds=2, ranks=(4, 16, 64), rel=1.0),
    World(name="five seeds, shallow", seeds=5, depth=0.012),
    # optima that lie on no line
    World(name="scatter 0.1", scatter=0.1),
    World(name="scatter 0.3, five seeds", scatter=0.3, seeds=5),
    World(name="bend", bend=0.08),
    # cliffs and edges
    World(name="cliff at 0.3", cliff=0.3),
    World(name="cliff at 0.5, half octave", cliff=0.5, spacing=0.5),
    World(name="ragged cliff at 1", cliff=1.0, cliff_scatter=0.15),
    World(name="cliff at 2, smooth asymmetry", cliff=2.0, shape="smooth asymmetry"),
    World(name="one optimum beyond", edges_high=1),
    World(name="two optima beyond", edges_high=2),
    World(name="one optimum below", edges_low=1),
    # missing runs
    World(name="one run missing", missing_runs=1),
    World(name="2 % missing", missing=0.02),
    World(name="10 % missing", missing=0.1),
    World(name="a seed missing at half of the ranks", missing_kind="seed at half of the ranks"),
    World(name="pending tail", missing=0.1, missing_kind="pending tail"),
)

ROUTES: tuple[RouteWorld, ...] = (
    RouteWorld(name="routes: equal"),
    RouteWorld(name="routes: rel 0.1", rel=0.1),
    RouteWorld(name="routes: rel 1", rel=1.0),
    RouteWorld(name="routes: η in ×4", lr_spacing=2.0, rel=0.1),
    RouteWorld(name="routes: α in ×4", alpha_spacing=2.0, rel=0.1),
    RouteWorld(name="routes: η in ×4, deep basin", lr_spacing=2.0, rel=0.1, depth=0.1),
    RouteWorld(name="routes: η in ×2.8, asymmetric", lr_spacing=1.5, rel=0.1, shape="right side ×4"),
    RouteWorld(name="routes: η in ×4, kink", lr_spacing=2.0, rel=0.1, shape="kink"),
    RouteWorld(name="routes: η ends 0.5 short", lr_beyond=-0.5),
    RouteWorld(name="routes: η ends 1.2 short", lr_beyond=-1.2),
    RouteWorld(name="routes: η ends 3.2 short", lr_beyond=-3.2, distance=4.0),
    RouteWorld(name="routes: α ends 1.2 short", alpha_beyond=-1.2),
    RouteWorld(name="routes: both end short", alpha_beyond=-1.2, lr_beyond=-1.2),
    RouteWorld(name="routes: optimum below the start", distance=-1.5),
    RouteWorld(name="routes: two seeds", seeds=2),
    RouteWorld(name="routes: five seeds, η in ×4", seeds=5, lr_spacing=2.0),
    RouteWorld(name="routes: level per seed", noise="level per seed"),
    RouteWorld(name="routes: tilt per seed", noise="tilt per seed", rel=0.1),
    RouteWorld(name="routes: shift per seed, η in ×4", noise="shift per seed", rel=0.1, lr_spacing=2.0),
    RouteWorld(name="routes: cliff at 0.5, η in ×4", cliff=0.5, lr_spacing=2.0, rel=0.1),
    RouteWorld(name="routes: 5 % missing", missing=0.05),
    RouteWorld(name="routes: three ranks, η in ×4", ranks=(4, 16, 64), lr_spacing=2.0, rel=0.1),
    RouteWorld(name="routes: seven ranks", ranks=(1, 2, 4, 8, 16, 32, 64), rel=0.1),
    RouteWorld(name="routes: α wins by 5 %", winner="alpha", gain=0.05),
    RouteWorld(name="routes: η wins by 5 %", winner="lr", gain=0.05),
    RouteWorld(name="routes: α wins by 10 %, η in ×4", winner="alpha", gain=0.1, lr_spacing=2.0),
)


def worlds_of(commit: str) -> tuple[World | RouteWorld, ...]:
    """Every world; ``commit`` draws ten of them."""
    return SURFACES + drawn_worlds(commit) + ROUTES


def estimator_commit() -> str:
    """The commit that last changed the estimator in this checkout.

    Raises:
        OSError: There is no git.
        ValueError: This is no git checkout.
    """
    command = ["git", "log", "-1", "--format=%H", "--", *ESTIMATOR]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    commit = found.stdout.strip()
    if not commit:
        raise ValueError(f"no commit of the estimator in {ROOT}: name one with --commit")
    return commit


def drawn_worlds(commit: str, *, number: int = DRAWN) -> tuple[World, ...]:
    """Worlds of which every feature is drawn by SHA-256 of a commit's id: nobody chose them.

    >>> drawn_worlds("a" * 40) == drawn_worlds("a" * 40), drawn_worlds("a" * 40) == drawn_worlds("b" * 40)
    (True, False)
    """
    digest = hashlib.sha256(commit.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    return tuple(_draw(f"drawn {index} by {commit[:8]}", rng) for index in range(1, number + 1))


def _draw(name: str, rng: np.random.Generator) -> World:
    def sometimes(share: float, value: float, *, otherwise: float = 0.0) -> float:
        return value if rng.random() < share else otherwise

    number = int(rng.choice([3, 4, 5, 7, 10]))
    step = 1 if number > 5 else int(rng.integers(1, 3))
    noise: Noise = get_args(Noise)[rng.integers(len(get_args(Noise)))]
    kind: Missing = get_args(Missing)[rng.integers(len(get_args(Missing)))]
    missing = sometimes(0.3, float(rng.uniform(0.01, 0.1)))
    cliff = sometimes(0.2, float(rng.uniform(0.3, 2.0)), otherwise=math.inf)
    edges = int(sometimes(0.2, 1.0)) if number > 3 else 0
    high = bool(rng.random() < 0.5)
    return World(
        name=name,
        ranks=tuple(2 ** (step * k) for k in range(number)),
        spacing=float(rng.choice([0.25, 0.5, 1.0, 2.0])),
        uneven=bool(rng.random() < 0.2),
        seeds=int(rng.choice([1, 2, 3, 5, 10], p=[0.05, 0.15, 0.5, 0.2, 0.1])),
        shape=str(rng.choice(list(SHAPES))),
        noise=noise,
        rel=float(2.0 ** rng.uniform(-4.0, 0.0)),
        exponent=float(rng.uniform(0.0, 1.0)),
        log2_coefficient=float(rng.uniform(4.0, 9.0)),
        scatter=sometimes(0.25, float(rng.uniform(0.1, 0.3))),
        bend=sometimes(0.1, float(rng.uniform(-0.08, 0.08))),
        tilt=float(rng.uniform(0.1, 0.4)) if noise.startswith("tilt") else World.tilt,
        shift=float(rng.uniform(0.05, 0.3)) if noise.startswith("shift") else World.shift,
        curvature_growth=sometimes(0.25, float(2.0 ** rng.uniform(-3.0, 3.0)), otherwise=1.0),
        width_growth=sometimes(0.25, float(2.0 ** rng.uniform(-1.0, 1.0)), otherwise=1.0),
        cliff=cliff,
        cliff_scatter=sometimes(0.5, 0.15) if cliff < math.inf else 0.0,
        edges_high=edges if high else 0,
        edges_low=0 if high else edges,
        missing=missing,
        missing_kind=kind if missing else "failed",
        depth=float(0.01 * 10.0 ** rng.uniform(0.0, 1.0)),
    )
