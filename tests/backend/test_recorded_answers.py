"""What the analysis answers on planted sweeps, recorded once: names and values of the wire and of the CSVs.

``tests/golden/analysis_answers.json`` holds seven significant digits. An answer may carry more fields than
were recorded, never fewer or others. After a change that is meant: delete the file, run this test, look at
the difference.
"""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from backend.store.engines import Store
from backend.store.tables import ProbeRow, RunRow
from lora_alpha.request import SweepRequest
from lora_alpha.spec import AlphaSchedule, Configuration
from lora_alpha.wire.client import Client

GOLDEN = Path(__file__).parents[1] / "golden" / "analysis_answers.json"
RAMP = AlphaSchedule(kind="ramp", start=0.1, ramp_steps=50)
HOLD = AlphaSchedule(kind="hold", target_metric="update_norm", target=2.0)
WIDE = SweepRequest(
    workload="mlp", ranks=[1, 2, 4, 8, 16, 64], alphas=[2.0**k for k in (5, 6, 7, 8, 9, 10)], seeds=[0, 1, 2],
    steps=100, tags=["a", "b"],
)  # fmt: skip
CROSSED = SweepRequest(
    workload="mlp", ranks=[2, 8, 32], alphas=[32, 128, 512, 2048], lrs=[1e-4, 4e-4, 1.6e-3], seeds=[0, 1],
    steps=100,
    cells=[
        Configuration(method="lora", rank=2, alpha=alpha, lr=4e-4, seed=seed, alpha_schedule=schedule)
        for schedule in (RAMP, HOLD) for alpha in (32, 128) for seed in (0, 1)
    ],
)  # fmt: skip
LAYERS = [{"name": "0", "in_features": 16}, {"name": "2", "in_features": 64}]
CSV_ROWS = 12  # kept of each CSV
DRAWN = (
    "/law",
    "/recommend",
    "/equivalence",
    "/collapse",
    "/schedules",
    "/optima.csv",
    "/law.csv",
    "/curvature",
)


def wide_loss(c: Configuration) -> float:
    """Lowest at α = 100·r^0.4, a bend and a ripple in it; the largest rank's optimum lies beyond the grid."""
    assert c.rank is not None
    assert c.alpha is not None
    best = 100.0 * c.rank**0.4 * (8 if c.rank == 64 else 1)
    away = math.log2(c.alpha / best) + 0.1 * math.sin(3 * c.rank + c.seed)
    return 1 + 0.05 * away**2 + 0.003 * math.cos(c.rank + 5 * c.seed)


def crossed_loss(c: Configuration) -> float:
    """Decided by α·η but for a little; the largest product diverges, schedules differ by 10 %."""
    assert c.rank is not None
    assert c.alpha is not None
    if c.alpha * c.lr > 3:
        return math.nan
    away = math.log2(c.alpha * c.lr / (0.05 * c.rank**0.3))
    factor = {"constant": 1.0, "ramp": 1.1, "hold": 0.9}[c.alpha_schedule.kind]
    return factor * (1 + 0.03 * away**2 + 0.004 * math.sin(7 * c.seed + c.rank + away))


def add_probes(store: Store, client: Client, sweep_id: str) -> None:
    """Finished probes of λ_max at the start of three runs, in both coordinates, and one that failed."""
    runs = [run for run in client.all_runs(sweep_id, rank=8, seed=0) if run.lr == 1e-4]
    for run in runs[:3]:
        for space, top in (("lora", 0.004 * (run.alpha or 0)), ("full", 1.5)):
            probe = client.create_probe({"run": run.id, "step": 0, "space": space})
            point = {"workload": "mlp", "method": "lora", "rank": 8, "alpha": run.alpha, "scale": run.scale}
            rows = [("lambda_max", top), ("lambda_min", -0.3), ("lambda_max/2", top / 3)]
            result = {
                "point": {**point, "lr": run.lr, "seed": 0, "step": 0},
                "layers": LAYERS,
                "rows": [{"kind": k, "index": 0, "value": v, "error": 1e-3} for k, v in rows],
            }
            with store.write() as session:
                found = update(ProbeRow).where(ProbeRow.id == probe.id)
                session.execute(found.values(state="finished", result=result))
    failed = client.create_probe({"run": runs[0].id, "step": 0})
    with store.write() as session:
        values = {"state": "failed", "error": "out of memory"}
        session.execute(update(ProbeRow).where(ProbeRow.id == failed.id).values(values))


@pytest.fixture
def answers(store: Store, client: Client, http: Any, worker: Any) -> dict[str, Any]:
    """Every answer of the analysis and the head of every CSV, ids replaced by numbers."""
    wide = client.create_sweep(WIDE).id
    worker.work(wide_loss)
    crossed = client.create_sweep(CROSSED).id
    worker.work(crossed_loss)
    add_probes(store, client, crossed)
    paths = [
        *(f"/sweeps/{wide}/{what}" for what in ("cells", "law", "equivalence")),
        *(f"/recommend?sweep={wide}&rank=4", f"/recommend?sweep={crossed}&rank=128&lr=2e-4"),
        *(f"/sweeps/{crossed}/{what}" for what in ("law", "law?target=lr", "equivalence", "collapse")),
        *(f"/sweeps/{crossed}/schedules", f"/curvature?sweep={crossed}"),
    ]
    found = {path: http.get(f"/api{path}").json() for path in paths}
    for kind in ("runs", "history", "cells", "optima", "law", "probes"):
        lines = b"".join(client.export_csv(kind, [wide, crossed])).decode().splitlines()
        found[f"{kind}.csv"] = list(csv.reader([*lines[: CSV_ROWS // 2], *lines[-CSV_ROWS // 2 :]]))
    text = json.dumps(found, ensure_ascii=False)
    with store.read() as session:
        runs = session.scalars(select(RunRow.id).order_by(RunRow.sweep_id == crossed, RunRow.position)).all()
        probes = session.scalars(select(ProbeRow.id).order_by(ProbeRow.created, ProbeRow.id)).all()
    for index, run in enumerate(runs):
        text = text.replace(run, f"run {index}")
    for index, probe in enumerate(probes):
        text = text.replace(probe, f"probe {index}")
    answer: dict[str, Any] = json.loads(text.replace(wide, "wide").replace(crossed, "crossed"))
    return answer


def rounded(value: Any) -> Any:
    """Seven significant digits of every float."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def differences(recorded: Any, found: Any, at: str = "") -> list[str]:
    """Where ``found`` lacks something of ``recorded`` or has another value."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        gone = [f"{at}/{key} is gone" for key in recorded.keys() - found.keys()]
        both = recorded.keys() & found.keys()
        return gone + [text for key in both for text in differences(recorded[key], found[key], f"{at}/{key}")]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        pairs = enumerate(zip(recorded, found, strict=True))
        return [text for index, (a, b) in pairs for text in differences(a, b, f"{at}/{index}")]
    if recorded == found or _close(recorded, found, loose=_is_drawn(at)):
        return []
    return [f"{at}: recorded {recorded!r}, found {found!r}"]


def _is_drawn(at: str) -> bool:
    """Whether a number is read off random draws: rounding on another machine may pick another draw."""
    return any(name in at for name in DRAWN) and "/losses" not in at


def _close(recorded: Any, found: Any, *, loose: bool) -> bool:
    try:
        # Optimisers and trigonometry of other machines differ in the last digits, sums of them in more.
        relative, absolute = (0.03, 2e-3) if loose else (1e-5, 1e-9)
        return math.isclose(float(recorded), float(found), rel_tol=relative, abs_tol=absolute)
    except (TypeError, ValueError):
        words = [re.sub(r"[-+]?[0-9.,]+(e[-+]?[0-9]+)?", "#", str(text)) for text in (recorded, found)]
        return loose and words[0] == words[1]


def test_answers_and_tables_are_those_that_were_recorded(answers: dict[str, Any]) -> None:
    if not GOLDEN.exists():
        lines = [f"{json.dumps(k)}: {json.dumps(rounded(v), ensure_ascii=False)}" for k, v in answers.items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        pytest.fail(f"{GOLDEN.name} was missing and is recorded now: look at it, then run again")
    assert differences(json.loads(GOLDEN.read_text()), answers) == []
