"""From finished probes to curvature in two coordinate systems."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select

from backend.services.outcomes import Reading, sweep_cells
from backend.store.engines import Store
from backend.store.sweeps import find_sweep
from backend.store.tables import ProbeRow
from lora_alpha.analysis.cells import Cell, constant_alpha
from lora_alpha.analysis.optimum import find_optima
from lora_alpha.analysis.sharpness import (
    Sharpness,
    rate_exponent,
    rates_at_sharpness,
    suppression_curves,
    what_is_missing,
)
from lora_alpha.wire.analysis import Curvature

MAX_PROBES = 20_000


def read(store: Store, sweep_id: str | None) -> Curvature:
    """``GET /curvature`` of one sweep's probes, or of those at fresh points (None).

    Raises:
        NotFound: If the sweep does not exist.
    """
    # Probes at fresh points belong to no sweep.
    query = select(ProbeRow).where(ProbeRow.sweep_id == sweep_id).order_by(ProbeRow.created, ProbeRow.id)
    cells: list[Cell] = []
    with store.read() as session:
        if sweep_id is not None:
            find_sweep(session, sweep_id)
            cells = constant_alpha(sweep_cells(session, sweep_id, Reading()))
        rows = list(session.scalars(query.limit(MAX_PROBES)))
        states = Counter(row.state for row in rows)
        found = [item for row in rows if row.state == "finished" for item in _sharpness(row)]
    optima = find_optima(cells, target="lr")
    rates = rates_at_sharpness(found, optima)
    return Curvature(
        sweep_id=sweep_id,
        points=found,
        suppression=suppression_curves(found),
        rates=rates,
        rate_exponent=rate_exponent(rates),
        num_unfinished=states["queued"] + states["running"],
        num_failed=states["failed"] + states["lost"] + states["cancelled"],
        reasons=what_is_missing(found, optima, rates),
    )


def _sharpness(row: ProbeRow) -> Iterator[Sharpness]:
    result: dict[str, Any] = row.result or {}
    point: dict[str, Any] = result.get("point", {})
    layers = {layer["name"]: layer for layer in result.get("layers", [])}
    if not layers:
        return
    width = statistics.median_low(layer["in_features"] for layer in layers.values())
    alpha, scale = _alpha_and_scale(point, list(layers.values()))
    extremes: dict[str, dict[str, dict[str, Any]]] = {}
    for number in result.get("rows", []):
        kind, _, layer = number["kind"].partition("/")
        name = "lambda_max" if kind == "top" and number["index"] == 0 else kind
        extremes.setdefault(layer, {})[name] = number
    for layer, numbers in extremes.items():
        highest, lowest = numbers.get("lambda_max"), numbers.get("lambda_min")
        if highest is None or highest["value"] is None:
            continue
        yield Sharpness(
            probe_id=row.id,
            run_id=row.run_id,
            workload=point.get("workload", ""),
            space=row.space,
            method=point.get("method", ""),
            rank=point.get("rank"),
            alpha=alpha,
            scale=scale,
            lr=point.get("lr") if row.run_id else None,
            seed=point.get("seed", 0),
            step=point.get("step", 0),
            layer=layer,
            in_features=layers[layer]["in_features"] if layer in layers else width,
            lambda_max=highest["value"],
            lambda_max_error=highest["error"],
            lambda_min=lowest["value"] if lowest else None,
            lambda_min_error=lowest["error"] if lowest else None,
        )


def _alpha_and_scale(
    point: dict[str, Any], layers: list[dict[str, Any]]
) -> tuple[float | None, float | None]:
    """α and s at the probed step: where α moved during training they are not those of the configuration."""
    alpha, scale = point.get("alpha"), point.get("scale")
    found = [layer["scale"] for layer in layers if layer.get("scale") is not None]
    # Layers with an α or a rank of their own have scales of their own: then the configuration speaks.
    if alpha is None or not scale or len(set(found)) != 1 or math.isclose(found[0], scale, rel_tol=1e-6):
        return alpha, scale
    return alpha * found[0] / scale, found[0]
