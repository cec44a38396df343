"""What a pack reported, by metric and step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lora_alpha.training.records import StepsDone

Curves = dict[str, dict[int, np.ndarray]]


def curves(events: Iterable[Any]) -> Curves:
    """Metric → step → values of all configurations; a point that is reported twice fails."""
    found: Curves = {}
    for event in events:
        for block in event.blocks if isinstance(event, StepsDone) else ():
            for column in range(block.values.shape[1]):
                step = block.start_step + column * block.stride
                assert step not in found.setdefault(block.metric, {}), "a point was reported twice"
                found[block.metric][step] = block.values[:, column]
    return found


def assert_same_points(found: Curves, expected: Curves) -> None:
    """The same metrics at the same steps."""
    assert {metric: sorted(points) for metric, points in found.items()} == {
        metric: sorted(points) for metric, points in expected.items()
    }
