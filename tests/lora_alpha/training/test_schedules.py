"""α over time: ramps, and the controller that holds a target, in training and across a resume."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lora_alpha.spec import AlphaSchedule, Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import CheckpointDue, PackFinished
from lora_alpha.training.schedules import FACTOR_HIGH, FACTOR_LOW, AlphaFactors, controlled_factor
from lora_alpha.workloads.registry import load_workload

OPTIONS = {"width": 24, "shift_rank": 4}


def train_spec(**changes) -> TrainSpec:
    given = {"steps": 120, "batch_size": 16, "eval_every": 20, "warmup": 5, "dynamics_every": 5}
    return TrainSpec(workload="mlp", workload_options=OPTIONS, **{**given, **changes})


def configuration(schedule: AlphaSchedule | None = None, **changes) -> Configuration:
    given = {"method": "lora", "rank": 4, "alpha": 32.0, "lr": 2e-3, "seed": 1}
    return Configuration(**{**given, **changes}, alpha_schedule=schedule or AlphaSchedule())


def hold(metric: str, target: float) -> AlphaSchedule:
    return AlphaSchedule(kind="hold", target_metric=metric, target=target)


def collect(events) -> tuple[dict[str, np.ndarray], PackFinished]:
    """Metric → (N, points), and the end."""
    blocks: dict[str, list[np.ndarray]] = {}
    finished = None
    for event in events:
        for block in getattr(event, "blocks", ()):
            blocks.setdefault(block.metric, []).append(block.values)
        finished = event if isinstance(event, PackFinished) else finished
    return {name: np.concatenate(parts, axis=1) for name, parts in blocks.items()}, finished


def train(spec: TrainSpec, configurations, **more):
    return collect(train_pack(load_workload("mlp", OPTIONS), spec, configurations, **more))


def test_control_moves_towards_the_target_by_a_bounded_amount():
    assert controlled_factor(1.0, measured=1.21, target=1.0) == pytest.approx(1 / 1.1)
    assert controlled_factor(1.0, measured=1e9, target=1.0) == 0.5
    assert controlled_factor(1.0, measured=1e-9, target=1.0) == 2.0
    assert controlled_factor(FACTOR_HIGH, measured=1e-9, target=1.0) == FACTOR_HIGH == 16
    assert controlled_factor(FACTOR_LOW, measured=1e9, target=1.0) == FACTOR_LOW == 1 / 16


@pytest.mark.parametrize("nothing", [math.nan, math.inf, 0.0])
def test_a_measurement_that_says_nothing_leaves_the_factor_alone(nothing):
    assert controlled_factor(0.7, measured=nothing, target=1.0) == 0.7


def test_each_configuration_follows_its_own_schedule():
    ramp = AlphaSchedule(kind="ramp", start=3.0, ramp_steps=10)
    factors = AlphaFactors([AlphaSchedule(), ramp, hold("update_norm", 1.0)])
    assert factors.watched == ("update_norm",)
    assert factors.at(5) == [1.0, 2.0, 1.0]
    factors.observe({"update_norm": [9.0, 9.0, 4.0]})
    assert factors.at(10) == [1.0, 1.0, 0.5]


def test_the_update_norm_is_held_under_adam_from_different_alphas():
    held = [configuration(hold("update_norm", 1.5), alpha=alpha) for alpha in (16.0, 64.0)]
    metrics, finished = train(train_spec(), [*held, configuration(), configuration(alpha=64.0)])
    reached = metrics["update_norm"][:, -3:]
    np.testing.assert_allclose(reached[:2], 1.5, rtol=0.1)
    np.testing.assert_allclose(reached[:2, -1], 1.5, rtol=0.02)
    assert np.all(np.abs(reached[2:] / 1.5 - 1) > 0.2), "the target is where constant α ends anyway"
    for index, adapters in enumerate(finished.adapters["adapters"]):
        exported = {float(parts["scale"]) for parts in adapters.values()}
        assert exported == {np.float32(metrics["scale"][index, -1])}
        assert finished.results[index].summary["scale"] == metrics["scale"][index, -1]


def test_the_drift_ratio_is_held_under_sgd():
    spec = train_spec(optimizer="sgd", lr_schedule="constant", warmup=0, steps=300)
    held = [configuration(hold("drift_ratio", target), lr=0.05, alpha=8.0) for target in (3e-3, 1e-2)]
    metrics, _ = train(spec, [*held, configuration(lr=0.05, alpha=8.0)])
    late = np.exp(np.log(metrics["drift_ratio"][:, 20:]).mean(axis=1))
    assert late[0] == pytest.approx(3e-3, rel=0.3)
    assert late[1] == pytest.approx(1e-2, rel=0.3)
    assert abs(math.log(late[2] / 3e-3)) > 0.4, "the target is what constant α gives anyway"


def test_under_adam_the_drift_ratio_does_not_follow_the_scale():
    """Why ``resolve`` refuses such a target: the controller runs into its end and the ratio stays."""
    low, free = configuration(hold("drift_ratio", 1e-5)), configuration()
    metrics, _ = train(train_spec(steps=200, lr_schedule="constant"), [low, free])
    assert metrics["scale"][0, -1] == pytest.approx(FACTOR_LOW * 8)
    late = np.median(metrics["drift_ratio"][:, -15:], axis=1)
    assert late[0] > 0.5 * late[1] > 1e-4


def test_a_held_configuration_leaves_constant_ones_bitwise_alone():
    spec = train_spec()
    alone, _ = train(spec, [configuration(), configuration()])
    beside, _ = train(spec, [configuration(), configuration(hold("update_norm", 1.5))])
    np.testing.assert_array_equal(alone["train_loss"][0], beside["train_loss"][0])
    assert not np.array_equal(alone["train_loss"][1], beside["train_loss"][1])
    assert "scale" not in alone
    assert set(beside["scale"][0]) == {8.0}


@pytest.mark.parametrize("stop", [35, 42], ids=["at a watched step", "between two"])
def test_a_resumed_pack_holds_on_bitwise(stop):
    spec = train_spec(checkpoint_steps=stop, steps=80)
    pack = [
        configuration(hold("update_norm", 1.5)),
        configuration(AlphaSchedule(kind="ramp", start=0.1, ramp_steps=60)),
        configuration(),
    ]
    workload = load_workload("mlp", OPTIONS)
    whole, _ = train(spec, pack)
    before, state = [], None
    for event in train_pack(workload, spec, pack):
        if isinstance(event, CheckpointDue):
            state = event.state
            break
        before.append(event)
    resumed, _ = collect([*before, *train_pack(workload, spec, pack, resume=state)])
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values, err_msg=name)


def test_a_diverged_configuration_disturbs_no_controller():
    spec = train_spec(optimizer="sgd", lr_schedule="constant", warmup=0)
    good = configuration(hold("drift_ratio", 3e-3), lr=0.05, alpha=8.0)
    bad = configuration(hold("drift_ratio", 3e-3), lr=90.0, alpha=8000.0)
    alone, _ = train(spec, [good, good])
    together, finished = train(spec, [good, bad])
    assert [result.diverged for result in finished.results] == [False, True]
    np.testing.assert_array_equal(together["scale"][0], alone["scale"][0])
    np.testing.assert_array_equal(together["train_loss"][0], alone["train_loss"][0])
    assert np.isnan(together["scale"][1, -1])


def test_alpha_over_time_with_B_rescaled_is_a_schedule_of_lr_B():
    """Why B is left alone: divided by the change of s, α over time would be nothing new under Adam."""
    generator = torch.Generator().manual_seed(0)
    target, start_A = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6, 5), (2, 5))
    )
    factors = [1.0 + 0.1 * step for step in range(30)]

    def adam(rescaled: bool) -> list[float]:
        A, B, scale = start_A.clone(), torch.zeros(6, 2, dtype=torch.float64), 1.5
        moments = [[torch.zeros_like(A), torch.zeros_like(A)], [torch.zeros_like(B), torch.zeros_like(B)]]
        losses, before = [], 1.0
        for step, factor in enumerate(factors, 1):
            change = factor / before if rescaled else 1.0
            scale, B, before = scale * change, B / change, factor
            moments[1] = [moments[1][0] * change, moments[1][1] * change**2]
            residual = scale * B @ A - target
            losses.append(float(residual.square().sum()))
            gradients = (scale * B.T @ residual, scale * residual @ A.T)
            lr_B, eps_B = (1e-2, 1e-8 * factor) if rescaled else (1e-2 * factor, 1e-8)
            steps = []
            for (mean, square), gradient, lr, eps in zip(
                moments, gradients, (1e-2, lr_B), (1e-8, eps_B), strict=True
            ):
                mean.mul_(0.9).add_(0.1 * gradient)
                square.mul_(0.999).add_(0.001 * gradient**2)
                root = (square / (1 - 0.999**step)).sqrt()
                steps.append(lr * mean / (1 - 0.9**step) / (root + eps))
            A, B = A - steps[0], B - steps[1]
        return losses

    np.testing.assert_allclose(adam(rescaled=True), adam(rescaled=False), rtol=1e-12)
