"""Recorded dynamics against dense float64 matrices, on the packed engine."""

import numpy as np
import pytest
import torch

from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.dynamics_recorder import DynamicsRecorder
from lora_alpha.training.engine import train_pack
from lora_alpha.training.optimizers import make_optimizer
from lora_alpha.workloads.registry import load_workload

CONFIGURATIONS = [
    Configuration(method="lora", rank=4, alpha=64, lr=1e-3, seed=0),
    Configuration(method="lora", rank=2, alpha=8, lr=5e-3, seed=1),
    Configuration(method="rslora", rank=4, alpha=8, lr=1e-3, seed=1),
    Configuration(method="lora-fa", rank=2, alpha=16, lr=1e-3, seed=2),
    Configuration(method="pissa", rank=3, alpha=6, lr=1e-3, seed=0),
    Configuration(method="full", lr=1e-4, seed=0),
]


def make_train(**changes):
    settings = {
        "workload": "mlp",
        "workload_options": {"width": 16},
        "steps": 20,
        "batch_size": 12,
        "dtype": "float64",
        "eval_every": 10,
        "warmup": 0,
        "lr_schedule": "constant",
        "weight_decay": 0.05,
    }
    return TrainSpec(**(settings | changes))


def effective_weights(adapters, pack_index):
    """Layer → dense W of one configuration."""
    weights = {}
    for name, group, layer in adapters.group_layers():
        if group.start <= pack_index < group.stop:
            tensors = {
                key: value.detach().clone() for key, value in layer.export(pack_index - group.start).items()
            }
            base = adapters.layers[name].base.weight
            if "weight" in tensors:
                weights[name] = tensors["weight"]
            else:
                weights[name] = base + tensors["scale"] * tensors["B"] @ tensors["A"]
                if "B0" in tensors:
                    weights[name] = weights[name] - tensors["scale"] * tensors["B0"] @ tensors["A0"]
    return weights


def full_gradients(workload, weights, batch):
    """∂loss/∂W of one configuration, by autograd on dense weights."""
    bare = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    leaves = {f"{name}.weight": weight.clone().requires_grad_() for name, weight in weights.items()}

    def model(inputs):
        return torch.func.functional_call(bare, leaves, (inputs,))

    workload.losses(model, batch, num_configs=1).sum().backward()
    return {name: leaves[f"{name}.weight"].grad for name in weights}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_recorded_statistics_equal_dense_matrices(optimizer):
    train = make_train(optimizer=optimizer)
    workload = load_workload("mlp", train.workload_options)
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    adapters = inject(model, workload.targets(model), CONFIGURATIONS)
    recorder, trainer = DynamicsRecorder(adapters), make_optimizer(adapters, train)
    seeds = [c.seed for c in adapters.configurations]
    pack_indices = range(len(seeds))
    initial = [effective_weights(adapters, pack_index) for pack_index in pack_indices]
    start_A = adapters.export()
    for step in range(3):
        before = [effective_weights(adapters, pack_index) for pack_index in pack_indices]
        factors = adapters.export()
        batch = workload.batch(model, step=step, seeds=seeds, batch_size=12)
        with recorder.watch():
            trainer.zero_grad()
            workload.losses(model, batch, num_configs=len(seeds)).sum().backward()
            trainer.step(1.0)
        after, later = (
            [effective_weights(adapters, pack_index) for pack_index in pack_indices],
            adapters.export(),
        )
    metrics = recorder.metrics
    for pack_index in pack_indices:
        own = {name: value[pack_index * 12 : (pack_index + 1) * 12] for name, value in batch.items()}
        gradients = full_gradients(workload, before[pack_index], own)
        caller = adapters.order[pack_index]
        inner = gradient_square = step_square = 0.0
        for name, gradient in gradients.items():
            step_dense = after[pack_index][name] - before[pack_index][name]
            update = after[pack_index][name] - initial[pack_index][name]
            cosine = -float((gradient * step_dense).sum() / (gradient.norm() * step_dense.norm()))
            assert float(metrics[f"purity/{name}"][pack_index]) == pytest.approx(cosine, rel=1e-8)
            assert float(metrics[f"update_norm/{name}"][pack_index]) == pytest.approx(
                float(update.norm()), rel=1e-8
            )
            inner += float((gradient * step_dense).sum())
            gradient_square += float(gradient.square().sum())
            step_square += float(step_dense.square().sum())
            if "A" not in factors[caller][name]:
                assert float(metrics[f"drift_ratio/{name}"][pack_index]) == 0
                continue
            A, B, s = (factors[caller][name][key] for key in ("A", "B", "scale"))
            dA, dB = later[caller][name]["A"] - A, later[caller][name]["B"] - B
            signal, drift = s * (dB @ A + B @ dA), s * dB @ dA
            expected = {
                "signal_norm": signal.norm(),
                "drift_norm": drift.norm(),
                "drift_ratio": drift.norm() / signal.norm(),
                "rel_change_A": (A + dA - start_A[caller][name]["A"]).norm()
                / start_A[caller][name]["A"].norm(),
                "stable_rank": (update.norm() / torch.linalg.matrix_norm(update, 2)) ** 2,
            }
            for metric, value in expected.items():
                found = float(metrics[f"{metric}/{name}"][pack_index])
                assert found == pytest.approx(float(value), rel=1e-7), (metric, name, pack_index)
        total = -inner / np.sqrt(gradient_square * step_square)
        assert float(metrics["purity"][pack_index]) == pytest.approx(total, rel=1e-8)


def series(events):
    """(metric → {step: values}) of a whole training."""
    found = {}
    for event in events:
        for block in getattr(event, "blocks", ()):
            for j in range(block.values.shape[1]):
                step = block.start_step + j * block.stride
                assert step not in found.setdefault(block.metric, {}), (block.metric, step)
                found[block.metric][step] = block.values[:, j]
    return found


def test_engine_records_every_k_steps_and_training_is_bitwise_the_same():
    workload = load_workload("mlp", {"width": 16})
    plain = series(train_pack(workload, make_train(), CONFIGURATIONS))
    watched = series(train_pack(workload, make_train(dynamics_every=4), CONFIGURATIONS))
    for metric, points in plain.items():
        for step, values in points.items():
            assert watched[metric][step].tobytes() == values.tobytes(), (metric, step)
    for metric in ("drift_ratio", "signal_norm", "drift_norm", "rel_change_A", "stable_rank", "purity"):
        assert list(watched[metric]) == [4, 8, 12, 16, 20]
        assert list(watched[f"{metric}/0"]) == [4, 8, 12, 16, 20]
    assert watched.keys() - plain.keys() >= {"update_norm/0", "purity/8"}
    assert watched["rel_change_A"][20][3] == 0  # LoRA-FA does not move A
    assert watched["drift_ratio"][20][3] == 0
    assert (watched["drift_ratio"][20][:3] > 0).all()
    assert (np.abs(watched["purity"][20]) <= 1).all()


def test_last_recorded_update_norm_is_that_of_the_evaluation():
    workload = load_workload("mlp", {"width": 16})
    watched = series(train_pack(workload, make_train(dynamics_every=10), CONFIGURATIONS[:3]))
    layers = [points[20] for metric, points in watched.items() if metric.startswith("update_norm/")]
    np.testing.assert_allclose(np.sqrt(np.square(layers).sum(0)), watched["update_norm"][20], rtol=1e-12)


def test_resumed_recording_continues_bitwise():
    train = make_train(dynamics_every=3, checkpoint_steps=7)
    workload = load_workload("mlp", train.workload_options)
    events = list(train_pack(workload, train, CONFIGURATIONS))
    whole = series(events)
    state = next(event.state for event in events if getattr(event, "state", None) and event.step == 7)
    rest = series(train_pack(workload, train, CONFIGURATIONS, resume=state))
    assert list(rest["drift_ratio"]) == [9, 12, 15, 18]
    for metric, points in rest.items():
        for step, values in points.items():
            np.testing.assert_array_equal(values, whole[metric][step], err_msg=f"{metric} {step}")


def test_a_diverged_configuration_is_nan_from_then_on_and_alone():
    train = make_train(dynamics_every=5, optimizer="sgd", dtype="float32", weight_decay=0.0, steps=60)
    workload = load_workload("mlp", train.workload_options)
    wild = Configuration(method="lora", rank=4, alpha=4096, lr=50.0, seed=0)
    found = series(train_pack(workload, train, [CONFIGURATIONS[1], wild]))
    ratio = np.stack(list(found["drift_ratio"].values()))
    assert np.isfinite(ratio[:, 0]).all()
    assert np.isnan(ratio[-1, 1])


def test_dora_measures_the_direction_and_leaves_purity_out():
    train = make_train(dynamics_every=5)
    workload = load_workload("mlp", train.workload_options)
    dora = Configuration(method="dora", rank=4, alpha=8, lr=1e-3)
    found = series(train_pack(workload, train, [dora]))
    assert np.isnan(found["purity"][20]).all()
    assert (found["drift_ratio"][20] > 0).all()
