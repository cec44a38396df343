"""What curves over steps share: bands of ± one standard deviation, and the range of a log axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboard.figures.style import faded
from lora_alpha.wire.sweeps import Curve


def spread_band(curve: Curve, colour: str, *, log_y: bool, **more: Any) -> list[dict[str, Any]]:
    """The band of a curve with seeds collapsed; no trace where fewer than two points have a spread.

    On a log axis points whose band would reach 0 are left out.
    """
    spreads = curve.std or [None] * len(curve.step)
    points = [
        (step, value, std)
        for step, value, std in zip(curve.step, curve.value, spreads, strict=True)
        if value is not None and std is not None and (not log_y or value > std)
    ]
    if len(points) < 2:
        return []
    steps = [step for step, _, _ in points]
    upper = [value + std for _, value, std in points]
    lower = [value - std for _, value, std in points]
    return [
        {
            "type": "scatter",
            "x": steps + steps[::-1],
            "y": upper + lower[::-1],
            "fill": "toself",
            "fillcolor": faded(colour, 0.15),
            "line": {"width": 0},
            "mode": "lines",
            "hoverinfo": "skip",
            "showlegend": False,
            **more,
        }
    ]


def log_view(curves: Sequence[Curve]) -> dict[str, Any]:
    """Range and ticks of a log axis that shows every curve without a divergence in full.

    A network that dies takes its drift ratio down by ten decades and would leave the others a line's width.
    """
    healthy = [curve for curve in curves if not curve.diverged] or list(curves)
    logs = [math.log10(v) for curve in healthy for v in curve.value if v is not None and v > 0]
    if not logs:
        return {}
    pad = 0.06 * (max(logs) - min(logs)) + 0.05
    low, high = min(logs) - pad, max(logs) + pad
    return {"range": [low, high], "dtick": log_ticks([10**low, 10**high])}


def log_ticks(values: Sequence[float]) -> str | int:
    """Ticks of a log axis: at 1, 2, 5 over few decades, at powers of ten over many, or they would overlap."""
    decades = math.log10(max(values) / min(values)) if values else 0.0
    return "D2" if decades < 3 else math.ceil(decades / 8)
