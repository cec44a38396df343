from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lora_alpha.analysis.cells import RunOutcome, make_cells
from lora_alpha.analysis.optimum import find_optima
from lora_alpha.analysis.sharpness import (
    Sharpness,
    rate_exponent,
    rates_at_sharpness,
    suppression_curves,
)


def probe(space: str, value: float, *, alpha: float = 8.0, rank: int = 4, **changes) -> Sharpness:
    fields = {"lr": 1e-3, "seed": 0, "step": 0, "layer": "", "in_features": 64, "lambda_min": -1.0, **changes}
    return Sharpness(
        probe_id="p",
        space=space,
        method="lora",
        rank=rank,
        alpha=alpha,
        scale=alpha / rank,
        lambda_max=value,
        **fields,
    )


def planted(exponent: float, crossing: float, **changes) -> list[Sharpness]:
    """λ_LoRA = 10·(α/crossing)^exponent beside λ_full = 10."""
    found = []
    for k in range(8):
        alpha = 2.0**k
        found.append(probe("lora", 10 * (alpha / crossing) ** exponent, alpha=alpha, **changes))
        found.append(probe("full", 10.0, alpha=alpha, **changes))
    return found


@pytest.mark.parametrize("exponent", [1.0, 1.6, 2.0])
def test_the_planted_crossing_and_slope_come_back(exponent):
    (curve,) = suppression_curves(planted(exponent, 23.7))
    assert curve.crossing == pytest.approx(23.7)
    assert curve.slope == pytest.approx(exponent)
    assert curve.predicted == pytest.approx(math.sqrt(3 * 64 * 4))
    assert curve.reason == ""
    assert [point.alpha for point in curve.points] == [2.0**k for k in range(8)]


def test_at_the_start_any_full_weight_probe_of_the_seed_serves():
    lora = [probe("lora", 5.0, alpha=alpha, seed=seed) for alpha in (1.0, 2.0) for seed in (0, 1)]
    full = [probe("full", 10.0, rank=32, seed=0, lr=5.0), probe("full", 40.0, rank=32, seed=1)]
    (curve,) = suppression_curves([*lora, *full])
    assert [point.ratio for point in curve.points] == pytest.approx([0.25, 0.25])  # √(1/2 · 1/8)
    assert [point.num_pairs for point in curve.points] == [2, 2]


def test_later_points_are_compared_at_their_own_weights_alone():
    lora = probe("lora", 5.0, step=100)
    assert suppression_curves([lora, probe("full", 10.0, step=100, alpha=16.0)]) == []
    (curve,) = suppression_curves([lora, probe("full", 10.0, step=100), probe("full", 1.0)])
    assert (curve.step, curve.lr, curve.points[0].ratio) == (100, 1e-3, 0.5)
    assert curve.slope is None


@pytest.mark.parametrize(
    ("crossing", "reason"), [(1e4, "below 1 up to the largest α"), (0.1, "above 1 from the smallest α")]
)
def test_a_curve_that_does_not_reach_1_says_so(crossing, reason):
    (curve,) = suppression_curves(planted(2.0, crossing))
    assert curve.crossing is None
    assert reason in curve.reason


def test_layers_and_negative_curvature_are_left_out():
    assert suppression_curves(planted(1.0, 8.0, layer="0")) == []
    assert suppression_curves([probe("lora", -1.0), probe("full", 10.0)]) == []


def test_best_rates_meet_the_sharpness_they_belong_to():
    runs = [
        RunOutcome("lora", 4, alpha, alpha / 4, lr, 0, "finished", 1 + math.log2(lr * alpha / 2**-6) ** 2)
        for alpha in (8.0, 32.0, 128.0)
        for lr in (2.0**k for k in range(-16, -4))
    ]
    optima = find_optima(make_cells(runs), target="lr")
    probes = [probe("lora", 3 * alpha, alpha=alpha) for alpha in (8.0, 32.0, 128.0, 512.0)]
    rates = rates_at_sharpness(probes, optima)
    assert [(rate.alpha, rate.lambda_max) for rate in rates] == [(8, 24), (32, 96), (128, 384)]
    assert rate_exponent(rates) == pytest.approx(1.0, abs=1e-3)
    assert rate_exponent(rates[:2]) is None
    assert rate_exponent([*rates[:2], replace(rates[2], censored="high_edge")]) is None
    assert rate_exponent([*rates[:2], replace(rates[2], censored="cliff")]) == pytest.approx(1.0, abs=1e-3)
    assert rates_at_sharpness([], optima) == []


def test_workloads_and_widths_are_never_compared_with_each_other():
    lora = [probe("lora", 5.0), probe("lora", 8.0, in_features=256), probe("lora", 9.0, workload="digits")]
    full = [probe("full", 10.0), probe("full", 16.0, in_features=256), probe("full", 36.0, workload="digits")]
    ratios = {(c.workload, c.in_features): c.points[0].ratio for c in suppression_curves([*lora, *full])}
    assert ratios == pytest.approx({("", 64): 0.5, ("", 256): 0.5, ("digits", 64): 0.25})
