"""A smooth curve without a prescribed shape: cubic B-splines on equal knots, and how rough one is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spline_basis(x: Array, num_segments: int) -> tuple[Array, Array]:
    """Cubic B-splines over the range of ``x``, and their derivatives by x.

    Args:
        x: (n,) positions, not all equal.
        num_segments: Number of equal parts that the range is cut into.

    Returns:
        Two (n, num_segments + 3) arrays: values, of which each row sums to 1, and derivatives.

    Source: Eilers & Marx 1996, Flexible smoothing with B-splines and penalties.

    >>> values, slopes = spline_basis(np.linspace(0.0, 1.0, 5), 4)
    >>> bool(np.allclose(values.sum(1), 1)), bool(np.allclose(slopes.sum(1), 0))
    (True, True)
    """
    width = (x.max() - x.min()) / num_segments
    place = (x - x.min()) / width
    segment = np.clip(place.astype(np.int64), 0, num_segments - 1)
    t = place - segment
    s = 1 - t
    values = np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], 1) / 6
    slopes = np.stack([-(s**2), 3 * t**2 - 4 * t, -3 * s**2 + 4 * s, t**2], 1) / (2 * width)
    full = np.zeros((2, len(x), num_segments + 3))
    rows, columns = np.arange(len(x))[:, None], segment[:, None] + np.arange(4)
    full[0, rows, columns], full[1, rows, columns] = values, slopes
    return full[0], full[1]


def roughness(num_columns: int) -> Array:
    """(k, k) matrix whose quadratic form is the sum of squared second differences of k coefficients."""
    second = np.diff(np.eye(num_columns), 2, axis=0)
    return np.asarray(second.T @ second)
