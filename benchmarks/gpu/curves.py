"""Whether two sweeps of the same request have the same curves."""

from __future__ import annotations

import math

from benchmarks._application import History
from benchmarks.gpu.stages import Figures


def compare(calm: History, stormy: History) -> Figures:
    """How two histories differ: points on one side only, and the largest difference of those on both.

    A difference is a share of its curve's largest finite |value|. Points of which only one side is finite
    (or that are infinite with another sign) are counted apart, as ``non_finite_differences``.
    """
    both = calm.keys() & stormy.keys()
    largest: dict[tuple[str, str], float] = {}
    for run, metric, step in both:
        for value in (calm[run, metric, step], stormy[run, metric, step]):
            if math.isfinite(value):
                largest[run, metric] = max(largest.get((run, metric), 0.0), abs(value))
    worst, where, unequal, non_finite = 0.0, None, 0, 0
    for point in sorted(both):
        left, right = calm[point], stormy[point]
        if left == right or (math.isnan(left) and math.isnan(right)):
            continue
        unequal += 1
        if not (math.isfinite(left) and math.isfinite(right)):
            non_finite += 1
        elif (difference := abs(left - right) / largest[point[0], point[1]]) > worst:
            worst, where = difference, point
    return {
        "points": len(both),
        "lost_points": len(calm.keys() - both),
        "added_points": len(stormy.keys() - both),
        "unequal_points": unequal,
        "non_finite_differences": non_finite,
        "largest_difference": worst,
        "largest_difference_at": where,
    }


def problems(found: Figures, *, tolerance: float) -> list[str]:
    """What is wrong with a comparison if differences up to ``tolerance`` are allowed; empty if nothing."""
    said = []
    if not found["points"]:
        said.append("there is no point to compare")
    if found["lost_points"] or found["added_points"]:
        said.append(f"{found['lost_points']} points were lost, {found['added_points']} are new")
    if found["non_finite_differences"]:
        said.append(f"{found['non_finite_differences']} points are finite in one of the sweeps only")
    if found["largest_difference"] > tolerance:
        said.append(
            f"curves differ by {found['largest_difference']:.3g} at {found['largest_difference_at']},"
            f" {tolerance:.1g} is allowed"
        )
    return said
