from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lora_alpha.methods import METHODS
from lora_alpha.spec import (
    ENDED_RUNS,
    ENDED_SWEEPS,
    AlphaRule,
    Configuration,
    ProbeSpec,
    RunState,
    SweepSpec,
    SweepState,
    TrainSpec,
    count_grid,
    expand,
    short_number,
)

TRAIN = TrainSpec(workload="mlp", steps=100, batch_size=8)


def sweep(**fields: Any) -> SweepSpec:
    base: dict[str, Any] = {
        "train": TRAIN,
        "methods": ["lora"],
        "ranks": [1, 4],
        "alphas": [8.0, 16.0],
        "lrs": [1e-4],
        "seeds": [0, 1, 2],
    }
    return SweepSpec(**{**base, **fields})


def test_a_grid_is_expanded_with_the_seed_fastest() -> None:
    names = [run.name for run in expand(sweep())]
    assert names[:4] == ["r1-a8-s0", "r1-a8-s1", "r1-a8-s2", "r1-a16-s0"]
    assert len(names) == len(set(names)) == 12


def test_names_come_from_what_varies() -> None:
    assert expand(sweep(lrs=[2e-4, 1e-3]))[0].name == "r1-a8-lr2e-4-s0"
    assert expand(sweep(methods=["lora", "rslora"]))[0].name == "lora-r1-a8-s0"
    assert expand(sweep(methods=["full"]))[0].name == "full-lr1e-4-s0"
    ratio = Configuration(method="lora", rank=1, alpha=8, lr=1e-4, lr_ratio=4)
    assert expand(sweep(cells=[ratio]))[-1].name == "r1-a8-x4-s0"


def test_full_fine_tuning_ignores_rank_and_alpha() -> None:
    runs = expand(sweep(methods=["full"], lrs=[1e-4, 1e-3]))
    assert len(runs) == 2 * 3
    assert {(run.configuration.rank, run.configuration.alpha) for run in runs} == {(None, None)}


def test_lora_alpha_takes_alpha_from_the_rule() -> None:
    runs = expand(sweep(methods=["lora-alpha"], ranks=[1, 16], alpha_rule=AlphaRule(coefficient=100)))
    assert {(run.configuration.rank, run.configuration.alpha) for run in runs} == {(1, 100.0), (16, 400.0)}


def test_duplicates_are_removed_and_the_first_stays() -> None:
    extra = [Configuration(method="lora", rank=4, alpha=16, lr=1e-4, seed=2)] * 2
    runs = expand(sweep(ranks=[1, 4, 4], alphas=[8, 16, 16.0], cells=extra))
    assert len(runs) == 12
    assert [run.name for run in runs] == [run.name for run in expand(sweep())]


def test_lora_plus_has_its_ratio_unless_another_is_given() -> None:
    assert expand(sweep(methods=["lora+"]))[0].configuration.lr_ratio == 16.0
    assert expand(sweep(methods=["lora+"], lr_ratio=2))[0].configuration.lr_ratio == 2.0


axis = st.lists(st.integers(1, 8), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=4), axis, axis, axis, axis)
def test_counting_agrees_with_expanding(
    methods: list[str], ranks: list[int], alphas: list[int], lrs: list[int], seeds: list[int]
) -> None:
    spec = sweep(
        methods=methods,
        ranks=ranks,
        alphas=[float(alpha) for alpha in alphas],
        lrs=[lr * 1e-4 for lr in lrs],
        seeds=seeds,
        alpha_rule=AlphaRule(coefficient=1.7),
    )
    assert count_grid(spec) == len(expand(spec))


def test_expansion_is_the_same_every_time_and_after_json() -> None:
    spec = sweep(methods=["lora", "full"], lrs=[1e-4, 2e-4])
    again = SweepSpec.model_validate_json(spec.model_dump_json())
    assert expand(spec) == expand(again)


@pytest.mark.parametrize(
    "fields",
    [
        {"rank": 0},
        {"rank": 5000},
        {"alpha": 0},
        {"alpha": math.nan},
        {"lr": math.inf},
        {"lr": -1e-4},
        {"seed": -1},
        {"colour": "red"},
    ],
)
def test_a_meaningless_configuration_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Configuration.model_validate({"method": "lora", "rank": 1, "alpha": 1, "lr": 1e-4, **fields})


def test_values_are_frozen() -> None:
    configuration = Configuration(method="lora", rank=4, alpha=8, lr=1e-4)
    with pytest.raises(ValidationError, match="frozen"):
        configuration.rank = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "text"),
    [(64.0, "64"), (2e-4, "2e-4"), (724.0773, "724.08"), (0.5, "0.5"), (1e-5, "1e-5"), (1e7, "1e7")],
)
def test_numbers_are_written_as_people_do(value: float, text: str) -> None:
    assert short_number(value) == text


def test_a_probe_knows_its_limits() -> None:
    assert ProbeSpec(workload="mlp", rank=4, alpha=8).kind == "extremes"
    for fields in ({"kind": "all"}, {"space": "x"}, {"tolerance": 0}, {"top_k": 0}, {"dtype": "float16"}):
        with pytest.raises(ValidationError):
            ProbeSpec.model_validate({"workload": "mlp", **fields})


def test_every_state_either_ends_or_goes_on() -> None:
    assert set(get_args(RunState)) - set(ENDED_RUNS) == {"queued", "running"}
    assert set(get_args(SweepState)) - set(ENDED_SWEEPS) == {"queued", "running", "paused", "stopping"}
    assert set(ENDED_RUNS) < set(get_args(RunState))
    assert set(ENDED_SWEEPS) < set(get_args(SweepState))
