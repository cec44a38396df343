from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from sqlalchemy import update

from backend.services import curvature, probes
from backend.settings import Settings
from backend.store.engines import Store
from backend.store.tables import ProbeRow
from lora_alpha.errors import NotFound
from lora_alpha.spec import ProbeSpec

NOW = 1_800_000_000
CLOCK = count(NOW)
LAYERS = [
    {"name": "0", "in_features": 16},
    {"name": "2", "in_features": 64},
    {"name": "4", "in_features": 64},
]


def finish(
    store: Store, settings: Settings, rows: list[dict[str, Any]], *, scale: float | None = None, **fields: Any
) -> str:
    """A finished probe at a fresh point whose result has these rows; ``scale`` is what its layers say."""
    spec = ProbeSpec(workload="mlp", rank=4, **fields)
    probe = probes.create(store, settings, spec, now=next(CLOCK))
    point = {"workload": "mlp", "method": "lora", "rank": 4, "alpha": spec.alpha, "scale": spec.alpha / 4}
    result = {"point": {**point, "lr": 1.0, "seed": 0, "step": 0}, "rows": rows}
    result["layers"] = [{**layer, "scale": scale} for layer in LAYERS]
    with store.write() as session:
        session.execute(
            update(ProbeRow).where(ProbeRow.id == probe.id).values(state="finished", result=result)
        )
    return probe.id


def row(kind: str, value: float | None, index: int = 0) -> dict[str, Any]:
    return {"kind": kind, "index": index, "value": value, "error": 1e-3}


def test_extremes_become_points_and_a_crossing(store: Store, settings: Settings, client: Any) -> None:
    for alpha in (8.0, 32.0):
        extremes = [row("lambda_max", alpha / 2), row("lambda_min", -1.0), row("lambda_max/2", alpha / 4)]
        finish(store, settings, extremes, alpha=alpha, space="lora")
    finish(store, settings, [row("lambda_max", 8.0), row("lambda_min", -2.0)], alpha=8, space="full")
    answer = client.curvature()
    assert answer == curvature.read(store, None)
    assert [(p.space, p.layer, p.lambda_max, p.lambda_min) for p in answer.points] == [
        ("lora", "", 4.0, -1.0),
        ("lora", "2", 2.0, None),
        ("lora", "", 16.0, -1.0),
        ("lora", "2", 8.0, None),
        ("full", "", 8.0, -2.0),
    ]
    assert {point.in_features for point in answer.points} == {64}
    assert {point.lr for point in answer.points} == {None}, "a fresh point has no learning rate"
    (curve,) = answer.suppression
    assert curve.crossing == pytest.approx(16.0)
    assert curve.slope == pytest.approx(1.0)


def test_the_largest_of_the_top_eigenvalues_is_a_point_too(store: Store, settings: Settings) -> None:
    finish(store, settings, [row("top", 9.0), row("top", 4.0, 1)], alpha=8, kind="top")
    (point,) = curvature.read(store, None).points
    assert (point.lambda_max, point.lambda_min) == (9.0, None)


def test_where_alpha_moved_the_point_has_the_alpha_of_its_step(store: Store, settings: Settings) -> None:
    finish(store, settings, [row("lambda_max", 9.0)], alpha=8, scale=0.5)
    finish(store, settings, [row("lambda_max", 9.0)], alpha=8, scale=2.0 + 1e-8)
    moved, still = curvature.read(store, None).points
    assert (moved.alpha, moved.scale) == (2.0, 0.5)
    assert (still.alpha, still.scale) == (8.0, 2.0)


def test_what_is_missing_is_said(store: Store, settings: Settings) -> None:
    empty = curvature.read(store, None)
    assert empty.points == empty.suppression == empty.rates == []
    assert "no probe of the extremes has finished yet" in empty.reasons
    finish(store, settings, [row("lambda_max", None)], alpha=8)
    finish(store, settings, [row("lambda_max", 3.0)], alpha=8)
    waiting = probes.create(store, settings, ProbeSpec(workload="mlp", rank=4, alpha=8), now=NOW)
    probes.create(store, settings, ProbeSpec(workload="mlp", rank=4, alpha=8), now=NOW)
    probes.cancel(store, waiting.id, now=NOW)
    answer = curvature.read(store, None)
    assert len(answer.points) == 1
    assert (answer.num_unfinished, answer.num_failed) == (1, 1)
    assert "only space 'lora' was probed: the ratio needs both" in answer.reasons
    with pytest.raises(NotFound):
        curvature.read(store, "zzz")
