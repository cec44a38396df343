from __future__ import annotations

import time
from typing import Any

import pytest

from lora_alpha.catalog import WORKLOADS, workload_info
from lora_alpha.catalog.resolve import MAX_RUNS, resolve
from lora_alpha.errors import InvalidSpec
from lora_alpha.request import SweepRequest
from lora_alpha.spec import SweepSpec, expand


def resolved(**fields: Any) -> SweepSpec:
    return resolve(SweepRequest.model_validate({"workload": "mlp", **fields}))


def problems(**fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        resolved(**fields)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_only_the_workload_is_required(name: str) -> None:
    info = workload_info(name)
    # A model or a file of the user's own is the one thing that nobody else can fill in.
    own = {option: "x" for option, field in info.options.model_fields.items() if field.is_required()}
    assert set(own) <= {"model", "data"}
    spec = resolve(SweepRequest(workload=name, workload_options=own))
    assert spec.ranks == info.defaults.ranks
    assert spec.train.steps == info.defaults.steps
    assert spec.train.lr_schedule == info.defaults.lr_schedule
    assert len(expand(spec)) > 0


def test_what_is_given_counts() -> None:
    spec = resolved(ranks=[3], alphas=[5], lrs=[1e-4], seeds=[9], steps=7, batch_size=2, optimizer="sgd")
    (run,) = expand(spec)
    assert (run.configuration.rank, run.configuration.alpha, run.configuration.seed) == (3, 5.0, 9)
    assert (run.train.steps, run.train.batch_size, run.train.optimizer) == (7, 2, "sgd")


def test_options_get_their_defaults() -> None:
    assert resolved(workload_options={"width": 64}).train.workload_options == {
        "width": 64,
        "shift": 0.5,
        "shift_rank": 8,
        "task_seed": 0,
    }


def test_the_default_alphas_follow_the_lr() -> None:
    usual = resolved().alphas
    assert resolved(lrs=[2e-5]).alphas == [alpha * 8 for alpha in usual]
    assert resolved(lrs=[8e-4]).alphas == [alpha / 4 for alpha in usual]
    assert resolved(lrs=[2e-5], alphas=[7]).alphas == [7.0]


def test_short_runs_shorten_the_defaults_that_depend_on_them() -> None:
    train = resolved(steps=5).train
    assert (train.warmup, train.eval_every, train.dynamics_every) == (5, 5, 5)
    assert resolved(steps=5, dynamics_every=70).train.dynamics_every == 5


def test_cells_alone_make_no_grid() -> None:
    spec = resolved(cells=[{"method": "lora", "rank": 4, "alpha": 8, "lr": 1e-3}])
    assert len(expand(spec)) == 1


def test_an_unknown_workload_lists_the_known() -> None:
    with pytest.raises(InvalidSpec, match=r"workload: got 'mpl': choose one of .*digits.*mlp"):
        resolve(SweepRequest(workload="mpl"))
    with pytest.raises(InvalidSpec) as caught:
        resolve(SweepRequest(workload="mpl", methods=["lore"]))
    assert [problem.field for problem in caught.value.problems] == ["workload", "methods"]


def test_every_problem_is_found_at_once() -> None:
    found = problems(
        workload_options={"width": 3, "x": 1},
        methods=["lora", "lore"],
        cells=[{"method": "lora", "lr": 1e-3}],
        steps=10,
        warmup=20,
        eval_every=11,
    )
    assert set(found) == {
        "workload_options.width",
        "workload_options.x",
        "methods",
        "cells.0",
        "warmup",
        "eval_every",
    }
    assert found["warmup"] == "got 20: must be at most the 10 steps of the run"
    assert "got 3: " in found["workload_options.width"]
    assert "got 'lore': choose from lora," in found["methods"]


def test_a_gigantic_request_is_refused_at_once() -> None:
    started = time.monotonic()
    found = problems(
        methods=["lora", "rslora"],
        ranks=list(range(1, 65)),
        alphas=[float(k) for k in range(1, 129)],
        lrs=[k * 1e-6 for k in range(1, 65)],
        seeds=list(range(100)),
    )
    assert time.monotonic() - started < 1
    assert found["sweep"].startswith("this asks for 104,857,600 runs: the most is")


def test_the_largest_allowed_sweep_is_allowed() -> None:
    spec = resolved(ranks=[1], alphas=[1], lrs=[k * 1e-6 for k in range(1, 51)], seeds=list(range(100)))
    assert len(expand(spec)) == 5000 < MAX_RUNS


DRIFT = {"kind": "hold", "target_metric": "drift_ratio"}
NORM = {"kind": "hold", "target_metric": "update_norm"}


def test_a_drift_ratio_cannot_be_held_by_alpha_under_adam() -> None:
    cell = {"method": "lora", "rank": 4, "alpha": 8, "lr": 1e-3, "alpha_schedule": DRIFT}
    wanted = "take target_metric 'update_norm', or optimizer 'sgd'"
    assert wanted in problems(alpha_schedule=DRIFT)["alpha_schedule.target_metric"]
    assert wanted in problems(cells=[cell])["cells.0.alpha_schedule.target_metric"]
    assert resolved(alpha_schedule=DRIFT, optimizer="sgd").alpha_schedule.kind == "hold"
    assert resolved(alpha_schedule=NORM).alpha_schedule.target_metric == "update_norm"


def test_a_controlled_alpha_needs_watched_steps() -> None:
    found = problems(alpha_schedule=NORM, dynamics_every=0)
    assert list(found) == ["alpha_schedule.kind"]
    assert "set dynamics_every to 1 or more" in found["alpha_schedule.kind"]


def test_the_learning_rates_schedule_is_also_read_by_its_old_name():
    old = SweepRequest.model_validate({"workload": "mlp", "schedule": "constant"})
    assert old == SweepRequest.model_validate({"workload": "mlp", "lr_schedule": "constant"})
    assert old.model_dump(exclude_unset=True) == {"workload": "mlp", "lr_schedule": "constant"}
