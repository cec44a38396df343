from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lora_alpha.errors import InvalidSpec
from lora_alpha.spec import Configuration
from lora_alpha.workloads.huggingface.held_out_scores import adapters_disabled
from lora_alpha.workloads.huggingface.model.sampling import complete
from lora_alpha.workloads.registry import load_workload

from .test_sft import CPU, adapted, curve, grid, train

Prepared = Callable[..., Any]
SMALL = {"group_size": 4, "max_new_tokens": 6, "eval_samples": 2, "num_eval": 4}
# A reward that an untrained model earns now and then: a lower-case letter somewhere in the completion.
LETTER = {"exact_weight": 0.0, "reward_pattern": "[a-z]", "pattern_weight": 1.0}


def test_reward_rises_on_held_out_prompts(prepared: Prepared) -> None:
    workload = prepared(
        "hf-rl", **{**SMALL, **LETTER, "group_size": 16, "max_new_tokens": 4, "eval_samples": 8}
    )
    pair = [Configuration(method="lora", rank=rank, alpha=64.0, lr=2e-2, seed=0) for rank in (2, 8)]

    steps, finished = train(workload, pair, steps=15, batch_size=4, eval_every=15, warmup=0)

    losses = curve(steps, "eval_loss")
    assert (losses[:, 0] > 0.7).all()
    assert (losses[:, -1] < losses[:, 0] - 0.2).all(), losses
    assert (curve(steps, "forgetting_loss")[:, -1] > 0).all()
    assert {result.diverged for result in finished.results} == {False}


def rollout(workload: Any, model: Any, **changes: Any) -> dict[str, torch.Tensor]:
    return workload.batch(model, **{"step": 3, "seeds": [0, 0, 1, 2], "batch_size": 2, **changes})


def test_completions_depend_on_weights_step_and_seed_alone(prepared: Prepared) -> None:
    workload = prepared("hf-rl", kind="gpt2", **SMALL)
    same = [Configuration(method="lora", rank=2, alpha=16.0, lr=1e-3, seed=0)] * 4
    model = workload.build_model(device=CPU, dtype=torch.float64)
    batch, again = rollout(workload, model), rollout(workload, model)
    later = rollout(workload, model, step=4)

    assert len(same) * 2 * 4 == len(batch["tokens"])
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    per_config = batch["tokens"].view(4, 8, -1)
    assert torch.equal(per_config[0], per_config[1])
    assert not torch.equal(per_config[0], per_config[2])
    assert later["tokens"].shape != batch["tokens"].shape or not torch.equal(later["tokens"], batch["tokens"])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_sampled_log_probabilities_are_the_models_own(prepared: Prepared, kind: str) -> None:
    """Left padding, the cache and the temperature change nothing: a plain forward pass gives the same."""
    workload = prepared("hf-rl", kind=kind, temperature=0.7, **SMALL)
    model = adapted(workload, grid())
    batch = rollout(workload, model)

    lengths = batch["real"].sum(1)
    assert len(set(lengths.tolist())) > 1
    for row in (0, 9, 31):
        tokens = batch["tokens"][row][: lengths[row]]
        config = row // 8
        logits = model(input_ids=tokens.repeat(4, 1)).logits[config].detach() / 0.7
        log_probs = logits.log_softmax(-1)
        for place in range(1, len(tokens)):
            if batch["learnt"][row, place]:
                found = batch["behaviour"][row, place]
                assert abs(float(found) - float(log_probs[place - 1, tokens[place]])) < 1e-5
    # so the ratio is 1 and the loss is what it is shown as: 1 − mean reward
    losses = workload.losses(model, batch, num_configs=4)
    assert torch.allclose(losses.double(), 1 - batch["rewards"].view(4, -1).mean(1).double(), atol=1e-6)


def test_sampling_follows_the_models_distribution(prepared: Prepared) -> None:
    workload = prepared("hf-rl", kind="gpt2", **SMALL)
    model = workload.build_model(device=CPU, dtype=torch.float32)
    prompt = workload.data.train.example(0)
    draws = (torch.arange(2000) + 0.5)[:, None] / 2000

    drawn = complete(model, [prompt] * 2000, num_new=1, end=None, draws_RS=draws)

    expected = model(input_ids=torch.tensor(prompt).long()[None]).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor(drawn.tokens)[:, 0], minlength=len(expected))
    assert (counts / 2000 - expected).abs().max() < 1.5e-3  # one draw lands at most one token off
    greedy = complete(model, [prompt], num_new=1, end=None, draws_RS=None)
    assert greedy.tokens[0][0] == int(expected.argmax())


def test_the_gradient_is_that_of_the_textbook_policy_gradient(prepared: Prepared) -> None:
    workload = prepared("hf-rl", kind="gpt2", **{**SMALL, **LETTER, "kl_weight": 0.3})
    model = adapted(workload, grid())
    batch = rollout(workload, model, batch_size=3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(workload.losses(model, batch, num_configs=4).sum(), parameters)

    with torch.no_grad(), adapters_disabled(model):
        base = model(input_ids=batch["tokens"]).logits.log_softmax(-1)
    log_probs = model(input_ids=batch["tokens"]).logits.log_softmax(-1)
    total = 0.0
    for config in range(4):
        terms, count = 0.0, 0
        for group in range(3):
            rows = range(config * 12 + group * 4, config * 12 + group * 4 + 4)
            rewards = batch["rewards"][list(rows), 0]
            for row in rows:
                advantage = (rewards[row - rows[0]] - rewards.mean()) / (rewards.std() + 1e-4)
                for place in range(1, batch["tokens"].shape[1]):
                    if batch["learnt"][row, place]:
                        token = batch["tokens"][row, place]
                        log_prob = log_probs[row, place - 1, token]
                        gap = base[row, place - 1, token] - log_prob
                        terms = terms - advantage * log_prob + 0.3 * (gap.exp() - gap - 1)
                        count += 1
        total = total + terms / count
    expected = torch.autograd.grad(total, parameters)
    assert batch["advantages"].abs().max() > 0
    # The cache works in float32 for what it returns: the ratio is 1 to seven digits.
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
    assert worst < 1e-5


def test_micro_batches_add_up_to_the_whole(prepared: Prepared) -> None:
    workload = prepared("hf-rl", kind="gpt2", accumulation=3, **{**SMALL, **LETTER, "kl_weight": 0.3})
    model = adapted(workload, grid())
    batch = rollout(workload, model)
    whole = workload.losses(model, batch, num_configs=4)
    parts = [workload.losses(model, p, num_configs=4) for p in workload.micro_batches(batch, num_configs=4)]
    assert len(parts) == 3
    assert torch.allclose(whole, sum(parts), atol=1e-9)


def test_gradient_checkpointing_still_samples_with_the_cache(prepared: Prepared) -> None:
    tokens = []
    for option in (False, True):
        workload = prepared("hf-rl", kind="gpt2", gradient_checkpointing=option, **SMALL)
        model = adapted(workload, grid())
        tokens.append(rollout(workload, model)["tokens"])
        assert model.training == option
    assert torch.equal(*tokens)


def test_the_right_answer_is_rewarded(prepared: Prepared) -> None:
    workload = prepared("hf-rl", **SMALL)
    train_answers = workload.data.answers["train"]
    assert len(train_answers) == len(workload.data.train)
    for index, answer in enumerate(train_answers):
        prompt = workload.tokenizer.decode(workload.data.train.example(index))
        numbers = [int(n) for n in prompt.replace("?", " ").split() if n.isdigit()]
        assert int(answer) == sum(numbers)
        assert prompt.endswith("Answer:")


def test_evaluation_is_repeatable_and_counts_right_answers(prepared: Prepared) -> None:
    workload = prepared("hf-rl", kind="gpt2", **SMALL)
    model = adapted(workload, grid())
    first, second = (workload.evaluate(model, num_configs=4) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.allclose(first["eval_loss"], 1 - first["accuracy"])
    assert (first["completion_tokens"] <= 6).all()
    assert (first["forgetting_loss"] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_pattern": "a(", "pattern_weight": 1.0}, r"reward_pattern: 'a\(' is no regular expression"),
        ({"reward_pattern": "a"}, "pattern_weight go together"),
        ({"exact_weight": 0.0}, "nothing is rewarded"),
        ({"max_new_tokens": 64, "max_tokens": 64}, "no token is left for the prompt"),
        ({"answer_pattern": "["}, "answer_pattern: '\\[' is no regular expression"),
    ],
)
def test_impossible_rewards_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        load_workload("hf-rl", {"model": "x", "data": "y", **options})


def test_references_without_an_answer_are_refused(prepared: Prepared) -> None:
    with pytest.raises(
        InvalidSpec, match=r"answer_pattern.*finds a final answer in none of the \d+ references"
    ):
        prepared("hf-rl", answer_pattern=r"\\boxed\{(.*)\}", **SMALL)


def test_a_prompt_that_leaves_no_room_is_dropped_and_counted(prepared: Prepared) -> None:
    workload = prepared("hf-rl", **{**SMALL, "max_tokens": 40})
    facts = workload.data.facts
    assert facts["num_dropped"] > 0
    assert facts["num_train"] + facts["num_held_out"] + facts["num_dropped"] == facts["rows"] == 40
    assert workload.data.train.lengths.max() <= 34
    assert np.issubdtype(workload.data.train.lengths.dtype, np.integer)
