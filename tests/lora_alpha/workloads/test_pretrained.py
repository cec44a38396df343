"""The contract that every workload with a pre-trained base keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_alpha.errors import WorkloadError
from lora_alpha.models.packed import PackedAdapters, inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import CheckpointDue, StepsDone, TrainingEvent
from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.registry import load_workload

from .conftest import SMALL

NAMES = sorted(SMALL)
CPU = torch.device("cpu")
Prepared = Callable[..., Workload]


def configurations(seeds: tuple[int, ...] = (0, 1, 1)) -> list[Configuration]:
    return [
        Configuration(method="lora", rank=2, alpha=8.0 * (place + 1), lr=1e-3, seed=seed)
        for place, seed in enumerate(seeds)
    ]


def adapted(workload: Workload, chosen: list[Configuration]) -> tuple[nn.Module, PackedAdapters]:
    """The base in float64 with adapters whose B is not zero, so that α and A matter."""
    model = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, workload.targets(model), chosen)
    for place, (_, _, layer) in enumerate(adapters.group_layers()):
        for row, c in enumerate(chosen):
            generator = torch.Generator().manual_seed(100 * c.seed + place)
            shape = layer.B[row].shape
            layer.B.data[row] = 0.05 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return model, adapters


@pytest.mark.parametrize("name", NAMES)
def test_build_before_prepare_says_what_to_do(name: str) -> None:
    workload = load_workload(name, SMALL[name])

    with pytest.raises(WorkloadError, match="prepare"):
        workload.build_model(device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_prepare_reports_progress_once_and_later_reads_the_same_base(name: str, tmp_path: Path) -> None:
    first, second = load_workload(name, SMALL[name]), load_workload(name, SMALL[name])

    progress = list(first.prepare(tmp_path))

    assert progress[0].done == 0
    assert progress[-1].done == progress[-1].total == SMALL[name]["pretrain_steps"]
    assert not list(first.prepare(tmp_path))
    assert not list(second.prepare(tmp_path))
    ours = first.build_model(device=CPU, dtype=torch.float32).state_dict()
    theirs = second.build_model(device=CPU, dtype=torch.float32).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [path.suffix for path in (tmp_path / "bases").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_again_gives_the_same_base(name: str, tmp_path: Path) -> None:
    states = []
    for folder in ("a", "b"):
        torch.rand(7)  # the global generator must not matter
        workload = load_workload(name, SMALL[name])
        list(workload.prepare(tmp_path / folder))
        states.append(workload.build_model(device=CPU, dtype=torch.float32).state_dict())

    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_base_is_frozen_and_every_linear_layer_is_a_target(name: str, prepared: Prepared) -> None:
    workload = prepared(name)

    model = workload.build_model(device=CPU, dtype=torch.float32)

    assert not any(parameter.requires_grad for parameter in model.parameters())
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert workload.targets(model) == linear
    assert len(linear) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_batch_depends_on_seed_and_step_alone(name: str, prepared: Prepared) -> None:
    workload = prepared(name)
    model = workload.build_model(device=CPU, dtype=torch.float64)

    def rows(step: int, seeds: list[int]) -> list[Tensor]:
        batch = workload.batch(model, step=step, seeds=seeds, batch_size=6)
        assert all(len(tensor) == 6 * len(seeds) for tensor in batch.values())
        return [torch.cat([t.reshape(6, -1).double() for t in piece], 1) for piece in _chunks(batch, 6)]

    together = rows(3, [5, 9, 5])

    def close(x: Tensor, y: Tensor) -> bool:  # sampled log-probabilities may differ in the last bits
        return torch.allclose(x, y, rtol=1e-12, atol=1e-12)

    assert close(together[0], together[2])
    assert close(together[1], rows(3, [9])[0])
    assert not close(together[0], together[1])
    assert not close(together[0], rows(4, [5])[0])


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_metrics_of_a_pack_equal_those_of_each_alone(name: str, prepared: Prepared) -> None:
    workload = prepared(name)
    chosen = configurations()
    model, _ = adapted(workload, chosen)
    batch = workload.batch(model, step=2, seeds=[c.seed for c in chosen], batch_size=4)
    losses = workload.losses(model, batch, num_configs=3)
    metrics = workload.evaluate(model, num_configs=3)

    for place, c in enumerate(chosen):
        alone, _ = adapted(workload, [c])
        own_batch = workload.batch(alone, step=2, seeds=[c.seed], batch_size=4)
        own_loss = workload.losses(alone, own_batch, num_configs=1)
        torch.testing.assert_close(losses[place], own_loss[0], rtol=1e-12, atol=1e-12)
        for key, value in workload.evaluate(alone, num_configs=1).items():
            torch.testing.assert_close(metrics[key][place], value[0], rtol=1e-12, atol=1e-12)
    assert {"eval_loss", "forgetting_loss"} <= set(metrics)
    assert len(set(metrics["eval_loss"].tolist())) == 3


@pytest.mark.parametrize("name", NAMES)
def test_untrained_adapters_leave_the_base_metrics(name: str, prepared: Prepared) -> None:
    workload = prepared(name)
    base = workload.build_model(device=CPU, dtype=torch.float64)
    model = workload.build_model(device=CPU, dtype=torch.float64)
    inject(model, workload.targets(model), configurations())

    expected = workload.evaluate(base, num_configs=1)
    metrics = workload.evaluate(model, num_configs=3)

    for key, value in expected.items():
        torch.testing.assert_close(metrics[key], value.expand(3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_loss_can_be_differentiated_twice(name: str, prepared: Prepared) -> None:
    workload = prepared(name)
    chosen = configurations((4,))
    model, adapters = adapted(workload, chosen)
    parameters = [layer.B for _, _, layer in adapters.group_layers()]
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    batch = workload.batch(model, step=0, seeds=[4], batch_size=4)

    def gradient(*, create_graph: bool = False) -> tuple[Tensor, ...]:
        loss = workload.losses(model, batch, num_configs=1).sum()
        return torch.autograd.grad(loss, parameters, create_graph=create_graph)

    with sdpa_kernel(SDPBackend.MATH):
        slope = sum((g * v).sum() for g, v in zip(gradient(create_graph=True), direction, strict=True))
        product = torch.autograd.grad(slope, parameters)
        step = 1e-6
        sides = []
        for sign in (1, -1):
            for p, v in zip(parameters, direction, strict=True):
                p.data += sign * step * v
            sides.append(gradient())
            for p, v in zip(parameters, direction, strict=True):
                p.data -= sign * step * v

    for exact, up, down in zip(product, *sides, strict=True):
        torch.testing.assert_close(exact, (up - down) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_resumed_training_repeats_the_uninterrupted_curves_bitwise(name: str, prepared: Prepared) -> None:
    workload = prepared(name)
    train = TrainSpec(
        workload=name,
        workload_options=SMALL[name],
        steps=6,
        batch_size=4,
        warmup=0,
        eval_every=2,
        checkpoint_steps=3,
    )
    whole = list(train_pack(workload, train, configurations()))
    checkpoint = next(event for event in whole if isinstance(event, CheckpointDue))

    rest = list(train_pack(prepared(name), train, configurations(), resume=checkpoint.state))

    expected, resumed = _curves(whole), _curves(rest)
    assert {"train_loss", "eval_loss", "forgetting_loss"} <= set(resumed)
    for metric, points in resumed.items():
        assert points
        for step, values in points.items():
            assert step > 3
            assert values == expected[metric][step]
    losses = [expected["train_loss"][step] for step in (4, 5, 6)]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_trains_and_evaluates(name: str, prepared: Prepared) -> None:
    train = TrainSpec(
        workload=name, workload_options=SMALL[name], steps=2, batch_size=4, eval_every=2, dtype="bfloat16"
    )

    curves = _curves(list(train_pack(prepared(name), train, configurations())))

    assert torch.isfinite(torch.tensor([curves["train_loss"][2], curves["eval_loss"][2]])).all()


def _curves(events: list[TrainingEvent]) -> dict[str, dict[int, tuple[float, ...]]]:
    curves: dict[str, dict[int, tuple[float, ...]]] = {}
    for event in events:
        for block in event.blocks if isinstance(event, StepsDone) else ():
            for place in range(block.values.shape[1]):
                step = block.start_step + place * block.stride
                curves.setdefault(block.metric, {})[step] = tuple(block.values[:, place].tolist())
    return curves


def _chunks(batch: object, size: int) -> list[list[Tensor]]:
    tensors = list(dict(batch).values())  # type: ignore[call-overload]
    return [list(piece) for piece in zip(*(t.split(size) for t in tensors), strict=True)]
