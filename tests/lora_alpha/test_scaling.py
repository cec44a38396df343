from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_alpha.scaling import (
    ScaleRule,
    alpha_for_scale,
    convert_alpha,
    effective_scale,
    law_alpha,
    spectral_match_alpha,
)

RULES: tuple[ScaleRule, ...] = ("alpha/r", "alpha/sqrt(r)")
alphas = st.floats(1e-3, 1e6)
ranks = st.integers(1, 4096)


def test_lora_divides_by_the_rank_and_rslora_by_its_root() -> None:
    assert effective_scale(64, 16) == 4.0
    assert effective_scale(64, 16, rule="alpha/sqrt(r)") == 16.0


@given(alphas, ranks, st.sampled_from(RULES))
def test_alpha_and_scale_are_each_others_inverse(alpha: float, rank: int, rule: ScaleRule) -> None:
    scale = effective_scale(alpha, rank, rule=rule)
    assert alpha_for_scale(scale, rank, rule=rule) == pytest.approx(alpha, rel=1e-12)


@given(alphas, ranks, st.sampled_from(RULES), st.sampled_from(RULES))
def test_conversion_keeps_the_effective_scale(
    alpha: float, rank: int, given_rule: ScaleRule, wanted: ScaleRule
) -> None:
    converted = convert_alpha(alpha, rank, given=given_rule, wanted=wanted)
    before = effective_scale(alpha, rank, rule=given_rule)
    assert effective_scale(converted, rank, rule=wanted) == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize(
    ("rank", "alpha", "scale"),
    [(1, 256, 256), (4, 512, 128), (8, 724, 90.5), (16, 1024, 64), (64, 2048, 32), (256, 4096, 16)],
)
def test_the_published_law_gives_its_published_numbers(rank: int, alpha: float, scale: float) -> None:
    assert law_alpha(rank) == pytest.approx(alpha, abs=0.5)
    assert effective_scale(law_alpha(rank), rank) == pytest.approx(scale, abs=0.05)


def test_the_law_with_rslora_would_give_a_constant_scale() -> None:
    scales = {round(effective_scale(law_alpha(rank), rank, rule="alpha/sqrt(r)"), 9) for rank in (1, 7, 64)}
    assert scales == {256.0}


def test_spectral_match_grows_with_the_root_of_the_rank() -> None:
    assert spectral_match_alpha(64, 16) == pytest.approx(math.sqrt(3 * 64 * 16))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_a_meaningless_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="finite and above 0"):
        effective_scale(alpha, 4)


def test_a_meaningless_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 0"):
        law_alpha(0)
