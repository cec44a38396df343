"""What merging an adapter into bfloat16 weights loses.

bfloat16 keeps 8 significant bits. Rounding W to it leaves an error that is uniform within half a unit in the
last place, whose norm over the mantissas of a weight matrix is 0.00166·‖W‖_F. The merged weight is W0 + ΔW
with ΔW = s·B·A, so that

- of the update is lost   0.00166·‖W0 + ΔW‖ / ‖ΔW‖, which grows as the update gets *small* beside the base;
- of the base is lost     0.00166·‖W0 + ΔW‖ / ‖W0‖, which grows as the update gets *large*: at a large s the
  base is rounded at the coarse grid of the update.

An adapter that is applied beside its base loses neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.methods.base import Method, Parts

# √(mean 4^⌊log2|w|⌋ / mean w²) = 0.737 for normal w, times 2⁻⁷/√12 for a uniform error of one unit: 0.00166.
# It varies by less than 1 % with the scale of w, and is 0.0017 for uniform w.
ROUNDING_ERROR = 0.00166
WARN_ABOVE = 0.01


@dataclass(frozen=True)
class MergeLoss:
    """What one layer loses in a bfloat16 merge, as fractions.

    Attributes:
        update: ‖error‖/‖ΔW‖; infinite for an update that is 0 beside a base that is not.
        base: ‖error‖/‖W0‖.
    """

    update: float
    base: float


def predict_merge_loss(*, base_norm: float, update_norm: float) -> MergeLoss:
    """From Frobenius norms alone, with the update taken as orthogonal to the base.

    >>> loss = predict_merge_loss(base_norm=100.0, update_norm=1.0)
    >>> round(loss.update, 3), round(loss.base, 5)
    (0.166, 0.00166)
    """
    error = ROUNDING_ERROR * float(np.hypot(base_norm, update_norm))
    return MergeLoss(
        update=error / update_norm if update_norm else float("inf"),
        base=error / base_norm if base_norm else float("inf"),
    )


def measure_merge_loss(
    base_OI: NDArray[Any], lora_A: NDArray[Any], lora_B: NDArray[Any], scale: float
) -> MergeLoss:
    """By rounding: the base as bfloat16 against bfloat16(base + s·B·A), in float64 otherwise.

    Args:
        base_OI: W0 as it is before the merge; it is rounded to bfloat16 first, as a bfloat16 base would be.
        lora_A: (r, in).
        lora_B: (out, r).
        scale: s.
    """
    base = round_to_bfloat16(base_OI).astype(np.float64)
    update = scale * (lora_B.astype(np.float64) @ lora_A.astype(np.float64))
    error = float(np.linalg.norm(round_to_bfloat16(base + update) - (base + update)))
    return MergeLoss(
        update=error / float(np.linalg.norm(update)) if update.any() else float("inf"),
        base=error / float(np.linalg.norm(base)) if base.any() else float("inf"),
    )


def round_to_bfloat16(values: NDArray[Any]) -> NDArray[np.float32]:
    """The nearest bfloat16 of finite numbers, ties to even, as float32: numpy has no such type.

    >>> round_to_bfloat16(np.array([1.0, 1.00390625, 1.01171875])).tolist()
    [1.0, 1.0, 1.015625]
    """
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def merge_warnings(layers: Mapping[str, Parts], *, method: Method) -> Iterator[str]:
    """One sentence for each kind of loss above 1 %, naming the worst layer.

    Layers without a ``base_norm``, new ones (they are merged anyway) and those of methods that do more than
    add a product (DoRA rescales rows) are left out.
    """
    if method.peft_vectors:
        return
    losses = {
        path: predict_merge_loss(base_norm=float(parts["base_norm"]), update_norm=_update_norm(method, parts))
        for path, parts in layers.items()
        if "base_norm" in parts and "new_weight" not in parts
    }
    moved = {path: loss for path, loss in losses.items() if np.isfinite(loss.update)}
    if not moved:
        return
    worst = max(moved, key=lambda path: moved[path].update)
    if moved[worst].update > WARN_ABOVE:
        yield (
            f"Merged into bfloat16 weights, {_count(moved, 'update')} of {len(moved)} layers lose more than "
            f"1 % of their update; the worst, {worst}, loses about {_percent(moved[worst].update)}. "
            "Keep the adapter apart, or merge in float32."
        )
    worst = max(moved, key=lambda path: moved[path].base)
    if moved[worst].base > WARN_ABOVE:
        yield (
            f"The scale is so large that in {_count(moved, 'base')} of {len(moved)} layers a merge into "
            f"bfloat16 moves the base itself by more than 1 %, in {worst} by {_percent(moved[worst].base)}. "
            "Keep the adapter apart, or merge in float32."
        )


def _count(losses: Mapping[str, MergeLoss], kind: str) -> int:
    return sum(getattr(loss, kind) > WARN_ABOVE for loss in losses.values())


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 1 else "all of it"


def _update_norm(method: Method, parts: Parts) -> float:
    lora_A, lora_B = (factor.astype(np.float64) for factor in method.peft_factors(parts))
    squared = float(np.sum((lora_B.T @ lora_B) * (lora_A @ lora_A.T)))
    return abs(float(parts["scale"])) * math.sqrt(max(squared, 0.0))
