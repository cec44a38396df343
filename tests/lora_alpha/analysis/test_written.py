from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_alpha.analysis.written import outward, written_alpha

POSITIVE = st.floats(1e-4, 1e7)


@pytest.mark.parametrize(
    ("estimate", "low", "high", "trained", "written"),
    [
        (512.0, 512.0, 512.0, [256.0, 512.0], 512.0),
        (1024.0, 1024.0, 1024.0, [1024.0], 1024.0),  # a measured one keeps its digits
        (362.0387, 362.0387, 362.0387, [], 362.0),  # an interval of no width is shown in three digits, too
        (2043.0, 1500.0, 2500.0, [2048.0], 2048.0),
        (2043.0, 2040.0, 2045.0, [2048.0], 2048.0),  # measured, wherever an interval ends
        (724.0773, 600.0, 900.0, [724.0773439350247], 724.0),  # nobody writes what a rule computed
        (16380.0, 16000.0, 17000.0, [16384.0], 16384.0),
        (491.0, 400.0, 600.0, [512.0], 512.0),
        (488.0, 400.0, 600.0, [512.0], 488.0),
        (3.62, 3.0, 4.5, [], 4.0),  # every trainer reads whole numbers
        (3.62, 3.4, 3.9, [], 3.62),
        (0.3128, 0.2, 0.4, [], 0.313),
        (724.0773, 0.0, 1e9, [512.0, 1024.0], 724.0),
    ],
)
def test_the_written_alpha_is_short_and_inside(
    estimate: float, low: float, high: float, trained: list[float], written: float
) -> None:
    assert written_alpha(estimate, low=low, high=high, trained=trained) == written


@given(POSITIVE, st.floats(0, 1), st.floats(0, 1))
def test_the_written_alpha_never_leaves_its_range_nor_the_shown_range(
    estimate: float, down: float, up: float
) -> None:
    low, high = estimate * (1 - 0.5 * down), estimate * (1 + up)
    alpha = written_alpha(estimate, low=low, high=high)
    shown_low, shown_high = outward(low, high, alpha=alpha)
    assert shown_low <= min(low, alpha)
    assert max(high, alpha) <= shown_high
    assert alpha == pytest.approx(estimate, rel=0.01) or low <= alpha <= high
