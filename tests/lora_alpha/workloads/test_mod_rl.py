from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import PackFinished, StepsDone
from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.policy_gradient import clipped_surrogate, group_advantages, sample_by_inversion
from lora_alpha.workloads.registry import load_workload

CPU = torch.device("cpu")
Prepared = Callable[..., Workload]
LORA = Configuration(method="lora", rank=2, alpha=8.0, lr=1e-3)


def test_sampling_by_inversion_follows_the_probabilities() -> None:
    probabilities = torch.tensor([[0.2, 0.0, 0.5, 0.3]], dtype=torch.float64)
    draws = (torch.arange(1000, dtype=torch.float64)[None] + 0.5) / 1000

    found = sample_by_inversion(probabilities, draws)

    assert torch.bincount(found[0], minlength=4).tolist() == [200, 0, 500, 300]
    assert sample_by_inversion(probabilities, torch.tensor([[0.0, 1 - 2**-53]])).tolist() == [[0, 3]]


def test_advantages_are_normalised_within_each_group() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])

    advantages = group_advantages(rewards)

    torch.testing.assert_close(advantages.sum(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(advantages[:2].std(1), torch.ones(2), atol=1e-3, rtol=0)
    assert torch.equal(advantages[2:], torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected", "slope"),
    [
        (0.0, 2.0, 2.0, 2.0),  # on policy: the plain policy gradient
        (math.log(1.5), 1.0, 1.2, 0.0),  # too likely already and good: clipped
        (math.log(1.5), -1.0, -1.5, -1.5),  # too likely and bad: full slope back
        (math.log(0.5), -1.0, -0.8, 0.0),  # unlikely already and bad: clipped
        (math.log(0.5), 1.0, 0.5, 0.5),  # unlikely and good: full slope back
    ],
)
def test_clipped_surrogate_by_hand(log_ratio: float, advantage: float, expected: float, slope: float) -> None:
    log_prob = torch.tensor(log_ratio - 1, dtype=torch.float64, requires_grad=True)

    value = clipped_surrogate(
        log_prob,
        torch.tensor(-1.0, dtype=torch.float64),
        torch.tensor(advantage, dtype=torch.float64),
        clip_range=0.2,
    )
    value.backward()

    assert value.item() == pytest.approx(expected)
    assert log_prob.grad is not None
    assert log_prob.grad.item() == pytest.approx(slope)


def test_reward_is_one_exactly_for_the_difference(prepared: Prepared) -> None:
    workload = prepared("mod-rl")
    model = workload.build_model(device=CPU, dtype=torch.float64)

    batch = workload.batch(model, step=0, seeds=[0, 1], batch_size=40)

    a, b = batch["prompts"] // 5, batch["prompts"] % 5
    assert torch.equal(batch["rewards"], (batch["answers"] == ((a - b) % 5)[:, None]).double())
    assert batch["prompts"].max() < 25  # ambiguous prompts alone
    assert 0 < batch["rewards"].mean() < 1


def test_on_policy_gradient_is_the_policy_gradient(prepared: Prepared) -> None:
    workload = prepared("mod-rl")
    model = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, workload.targets(model), [LORA])
    parameters = [layer.B for _, _, layer in adapters.group_layers()]
    batch = workload.batch(model, step=0, seeds=[0], batch_size=6)

    loss = workload.losses(model, batch, num_configs=1).sum()
    gradient = torch.autograd.grad(loss, parameters)
    a, b = batch["prompts"] // 5, batch["prompts"] % 5
    prompts = torch.stack([a, torch.full_like(a, 5), b, torch.full_like(a, 8)], dim=1)
    log_probs = model(prompts)[:, -1, :5].log_softmax(-1).gather(1, batch["answers"])
    expected = torch.autograd.grad(-(log_probs * batch["advantages"]).mean(), parameters)

    assert loss.item() == pytest.approx(1 - batch["rewards"].mean().item())
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_hot_sampling_is_corrected_by_the_ratio(prepared: Prepared) -> None:
    workload = prepared("mod-rl", temperature=3.0)
    model = workload.build_model(device=CPU, dtype=torch.float64)

    batch = workload.batch(model, step=0, seeds=[0], batch_size=20)

    prompts = batch["prompts"]
    tokens = torch.stack(
        [prompts // 5, torch.full_like(prompts, 5), prompts % 5, torch.full_like(prompts, 8)], 1
    )
    with torch.no_grad():
        logits = model(tokens)[:, -1, :5]
    behaviour = (logits.log_softmax(-1) / 3).log_softmax(-1).gather(1, batch["answers"])
    torch.testing.assert_close(batch["behaviour_log_probs"], behaviour)


def test_kl_term_is_zero_at_the_base_and_adds_its_exact_value_elsewhere(prepared: Prepared) -> None:
    plain, penalised = prepared("mod-rl"), prepared("mod-rl", kl_weight=2.0)
    model = plain.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, plain.targets(model), [LORA])
    batch = plain.batch(model, step=0, seeds=[0], batch_size=8)

    def difference() -> float:
        with torch.no_grad():
            ours = penalised.losses(model, batch, num_configs=1)
            return float(ours - plain.losses(model, batch, num_configs=1))

    assert difference() == pytest.approx(0, abs=1e-10)
    for _, _, layer in adapters.group_layers():
        layer.B.data += 0.1
    prompts = batch["prompts"]
    tokens = torch.stack(
        [prompts // 5, torch.full_like(prompts, 5), prompts % 5, torch.full_like(prompts, 8)], 1
    )
    with torch.no_grad():
        now = model(tokens)[:, -1, :5].log_softmax(-1)
        with adapters.disabled():
            base = model(tokens)[:, -1, :5].log_softmax(-1)
    kl = (now.exp() * (now - base)).sum(1).mean().item()
    assert kl > 1e-4
    assert difference() == pytest.approx(2 * kl)


def test_p_correct_is_the_exact_probability_on_prompts_that_reward_never_shows(prepared: Prepared) -> None:
    workload = prepared("mod-rl")
    model = workload.build_model(device=CPU, dtype=torch.float64)

    seen = {
        int(prompt)
        for step in range(30)
        for prompt in workload.batch(model, step=step, seeds=[0], batch_size=8)["prompts"]
    }
    held_out = torch.tensor(sorted(set(range(25)) - seen))
    tokens = torch.stack(
        [held_out // 5, torch.full_like(held_out, 5), held_out % 5, torch.full_like(held_out, 8)], 1
    )
    with torch.no_grad():
        probabilities = model(tokens)[:, -1, :5].softmax(-1)
    correct = probabilities.gather(1, ((held_out // 5 - held_out % 5) % 5)[:, None]).mean().item()
    metrics = workload.evaluate(model, num_configs=1)

    assert len(held_out) == 6
    assert metrics["p_correct"].item() == pytest.approx(correct)
    assert metrics["eval_loss"].item() == pytest.approx(1 - correct)
    assert metrics["kl_from_base"].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.slow
def test_reward_training_raises_exact_p_correct(tmp_path: Path) -> None:
    options = {"modulus": 11, "width": 32, "pretrain_steps": 400}
    workload = load_workload("mod-rl", options)
    list(workload.prepare(tmp_path))
    train = TrainSpec(
        workload="mod-rl",
        workload_options=options,
        steps=60,
        batch_size=8,
        lr_schedule="constant",
        eval_every=60,
    )
    configurations = [
        Configuration(method="lora", rank=4, alpha=32.0, lr=1e-3, seed=seed) for seed in range(2)
    ]

    events = list(train_pack(workload, train, configurations))

    first = next(event for event in events if isinstance(event, StepsDone))
    start = next(block.values[:, 0] for block in first.blocks if block.metric == "p_correct")
    end = [event for event in events if isinstance(event, PackFinished)][0].results
    assert all(0.4 < value < 0.65 for value in start)
    for before, result in zip(start, end, strict=True):
        assert result.summary["p_correct"] > before + 0.1
