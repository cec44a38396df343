"""Packed training against one-at-a-time training, isolation, resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lora_alpha.models.packed import inject
from lora_alpha.spec import AlphaSchedule, Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import CheckpointDue, PackFinished
from lora_alpha.workloads.registry import load_workload
from tests.lora_alpha.training import reference
from tests.lora_alpha.training.curves import curves

WIDTH = 24
METHODS = ("lora", "rslora", "lora-alpha", "lora+", "lora-fa", "pissa", "dora")


def workload():
    return load_workload("mlp", {"width": WIDTH, "shift_rank": 4})


def spec(**changes) -> TrainSpec:
    given = {"steps": 40, "batch_size": 8, "dtype": "float64", "eval_every": 10, "warmup": 5}
    return TrainSpec(
        workload="mlp", workload_options={"width": WIDTH, "shift_rank": 4}, **{**given, **changes}
    )


def configurations() -> list[Configuration]:
    """Every method at mixed ranks, interleaved so that pack order differs from the caller's."""
    found = []
    for index, method in enumerate(METHODS):
        for rank in (5, 1, 3):
            found.append(
                Configuration(
                    method=method,
                    rank=rank,
                    alpha=4.0 * rank,
                    lr=1e-3 * (1 + index % 2),
                    seed=rank + index,
                    lr_ratio=16.0 if method == "lora+" else 1.0,
                    eps_ratio=0.5 if method == "lora" else 1.0,
                    weight_decay_ratio=0.25 if method == "lora" else 1.0,
                )
            )
    return [*found[::2], Configuration(method="full", lr=1e-4, seed=1), *found[1::2]]


def initial_factors(model: nn.Module, targets, configuration):
    if configuration.method == "full":
        return {}
    adapters = inject(model, targets, [configuration])
    return {name: (layer.A[0].detach(), layer.B[0].detach()) for name, _, layer in adapters.group_layers()}


def plain_losses(train: TrainSpec, configuration: Configuration) -> list[float]:
    task = workload()
    model = task.build_model(device=torch.device("cpu"), dtype=torch.float64)
    base = task.build_model(device=torch.device("cpu"), dtype=torch.float64)
    factors = initial_factors(model, task.targets(model), configuration)
    return reference.train_plain(
        task, reference.plain_model(base, factors, configuration), configuration, train
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 0.1},
        {"lr_schedule": "constant", "clip": 0.05},
        {"optimizer": "sgd", "lr_schedule": "constant", "warmup": 0},
    ],
    ids=["adamw-cosine-decay", "clipped", "sgd"],
)
def test_packed_training_equals_one_at_a_time(changes):
    train = spec(**changes)
    packed = curves(train_pack(workload(), train, configurations()))["train_loss"]
    for index, configuration in enumerate(configurations()):
        expected = plain_losses(train, configuration)
        got = [packed[step][index] for step in range(1, train.steps + 1)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, err_msg=str(configuration))


def test_every_method_starts_from_the_base():
    losses = curves(train_pack(workload(), spec(steps=1, warmup=0, eval_every=1), configurations()))[
        "eval_loss"
    ][0]
    np.testing.assert_allclose(losses, 1.0, rtol=1e-8)  # the targets are float32


def test_a_poisoned_configuration_leaves_the_others_bitwise_equal():
    train = spec(steps=30, dtype="float32")
    healthy = [Configuration(method="lora", rank=r, alpha=8.0, lr=1e-3, seed=r) for r in (2, 4, 4)]
    poison = Configuration(method="lora", rank=4, alpha=1e9, lr=100.0, seed=9)
    alone = curves(train_pack(workload(), train, [healthy[0], healthy[1], healthy[2], healthy[1]]))
    *events, finished = train_pack(workload(), train, [healthy[0], healthy[1], healthy[2], poison])
    together = curves(events)
    for step, values in alone["train_loss"].items():
        np.testing.assert_array_equal(together["train_loss"][step][:3], values[:3])
    assert [result.diverged for result in finished.results] == [False, False, False, True]
    step = finished.results[3].diverged_step
    assert finished.results[3].final_loss is None
    assert np.isnan(together["train_loss"][train.steps][3])
    assert all(np.isfinite(together["train_loss"][before][3]) for before in range(1, step))


def test_resume_continues_bitwise():
    train = spec(checkpoint_steps=15, clip=1.0, weight_decay=0.01, dtype="float32")
    whole = curves(train_pack(workload(), train, configurations()))
    events, state = [], None
    for event in train_pack(workload(), train, configurations()):
        if isinstance(event, CheckpointDue):
            state = event.state
            break
        events.append(event)
    resumed = curves([*events, *train_pack(workload(), train, configurations(), resume=state)])
    assert {metric: sorted(points) for metric, points in resumed.items()} == {
        metric: sorted(points) for metric, points in whole.items()
    }
    for metric, points in whole.items():
        for step, values in points.items():
            np.testing.assert_array_equal(resumed[metric][step], values)


def test_dropout_is_the_same_in_any_pack_and_after_a_resume():
    found = configurations()
    train = spec(checkpoint_steps=15, lora_dropout=0.3)
    whole = curves(train_pack(workload(), train, found))["train_loss"]
    for index in (1, 7, 20):  # others than the full one, which has no adapter input
        alone = curves(train_pack(workload(), train, [found[index]]))["train_loss"]
        for step, values in alone.items():
            np.testing.assert_allclose(values[0], whole[step][index], rtol=1e-9)
    state = next(e.state for e in train_pack(workload(), train, found) if isinstance(e, CheckpointDue))
    for step, values in curves(train_pack(workload(), train, found, resume=state))["train_loss"].items():
        np.testing.assert_array_equal(values, whole[step])
    without = curves(train_pack(workload(), spec(checkpoint_steps=15), found))["train_loss"]
    differs = ~np.isclose(whole[40], without[40], rtol=1e-6)
    assert [c.method for c, other in zip(found, differs, strict=True) if not other] == ["full"]


def test_a_wanted_checkpoint_comes_after_the_next_step():
    events = train_pack(workload(), spec(), configurations()[:2], wants_checkpoint=lambda: True)
    first = next(event for event in events if isinstance(event, CheckpointDue))
    assert first.step == 1


def test_results_are_in_the_callers_order():
    found = configurations()
    *_, finished = train_pack(workload(), spec(steps=5), found)
    assert isinstance(finished, PackFinished)
    for configuration, layers in zip(found, finished.adapters["adapters"], strict=True):
        tensors = next(iter(layers.values()))
        if configuration.method == "full":
            assert set(tensors) == {"weight", "base_norm"}
        else:
            assert tensors["A"].shape == (configuration.rank, WIDTH)


def test_alpha_ramp_changes_the_scale_and_not_the_factors():
    schedule = AlphaSchedule(kind="ramp", start=0.5, ramp_steps=20)
    ramp = Configuration(method="lora", rank=2, alpha=8.0, lr=1e-3, alpha_schedule=schedule)
    scale = curves(train_pack(workload(), spec(), [ramp]))["scale"]
    assert scale[10][0] == pytest.approx(4.0 * (0.5 + 0.5 * 9 / 20))
    assert scale[40][0] == 4.0


def test_golden_losses_do_not_move():
    """A refactor must not change results: 20 steps of a small sweep, stored."""
    path = Path(__file__).parents[2] / "golden" / "mlp_20_steps.json"
    train = spec(steps=20, dtype="float32", eval_every=20)
    losses = curves(train_pack(workload(), train, configurations()))["eval_loss"][20].tolist()
    np.testing.assert_allclose(losses, json.loads(path.read_text())["eval_loss"], rtol=2e-4)
