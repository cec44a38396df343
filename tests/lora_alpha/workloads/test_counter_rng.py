from __future__ import annotations

import numpy as np
import pytest

from lora_alpha.workloads.counter_rng import indices, uniforms


def test_draws_are_a_function_of_seed_step_and_stream() -> None:
    base = uniforms([3], step=7, count=50)

    assert np.array_equal(base, uniforms([1, 3], step=7, count=50)[1:])
    for other in (
        uniforms([4], step=7, count=50),
        uniforms([3], step=8, count=50),
        uniforms([3], step=7, count=50, stream=1),
    ):
        assert not np.isin(other, base).any()


def test_draws_look_uniform_and_uncorrelated() -> None:
    draws = uniforms(list(range(200)), step=0, count=500)

    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    expected = draws.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    seeds = np.corrcoef(draws)[np.triu_indices(200, k=1)]
    steps = np.corrcoef(draws[0], uniforms([0], step=1, count=500)[0])[0, 1]
    assert abs(seeds.mean()) < 0.002
    assert np.abs(seeds).max() < 5 / np.sqrt(500)
    assert abs(steps) < 4 / np.sqrt(500)


@pytest.mark.parametrize("high", [1, 2, 23, 999])
def test_indices_cover_their_range(high: int) -> None:
    drawn = indices([0], step=0, count=20 * high + 50, high=high)

    assert set(drawn[0]) == set(range(high))


def test_large_seed_and_step_do_not_overflow() -> None:
    draws = uniforms([2**31 - 1], step=10_000_000, count=3)

    assert np.isfinite(draws).all()
