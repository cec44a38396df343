from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import PackFinished, StepsDone
from lora_alpha.workloads.huggingface.data.batching import padded_rows

CPU = torch.device("cpu")
Prepared = Callable[..., Any]
KINDS = ("llama", "qwen2", "gpt2")


def grid(**changes: Any) -> list[Configuration]:
    """Two ranks by two α."""
    return [
        Configuration(**{"method": "lora", "rank": rank, "alpha": alpha, "lr": 5e-3, "seed": 0, **changes})
        for rank in (2, 4)
        for alpha in (16.0, 64.0)
    ]


def adapted(workload: Any, configurations: list[Configuration]) -> Any:
    """The base in float64 with adapters whose B is not zero, each configuration's its own."""
    model = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, workload.targets(model), configurations, **workload.patterns())
    generator = torch.Generator().manual_seed(5)
    for _, _, layer in adapters.group_layers():
        layer.B.data.normal_(std=0.02, generator=generator)
    return model


def train(workload: Any, configurations: list[Configuration], **changes: Any) -> tuple[list[Any], Any]:
    spec = TrainSpec(
        **{"workload": workload.name, "steps": 30, "batch_size": 4, "eval_every": 15, "warmup": 2, **changes}
    )
    events = list(train_pack(workload, spec, configurations))
    return [e for e in events if isinstance(e, StepsDone)], next(
        e for e in events if isinstance(e, PackFinished)
    )


def curve(steps: list[Any], metric: str) -> np.ndarray:
    return np.concatenate([b.values for e in steps for b in e.blocks if b.metric == metric], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_of_two_ranks_and_two_alphas_lowers_the_held_out_loss(prepared: Prepared, kind: str) -> None:
    steps, finished = train(prepared(kind=kind), grid())

    losses = curve(steps, "eval_loss")
    assert losses.shape == (4, 3)
    assert (losses[:, -1] < losses[:, 0] - 0.2).all()
    assert len({result.final_loss for result in finished.results}) == 4
    drift = curve(steps, "forgetting_loss")
    assert np.allclose(drift[:, 0], 0, atol=1e-6)
    assert (drift[:, -1] > 1e-3).all()


def reference_loss(model: Any, workload: Any, indices: list[int]) -> float:
    """One example at a time, every position, the obvious way."""
    total = count = 0.0
    for index in indices:
        tokens = torch.tensor(workload.data.train.example(index)).long()
        prompt = int(workload.data.train.prompt_lengths[index])
        log_probs = model(input_ids=tokens[None]).logits[0].log_softmax(-1)
        for place in range(1, len(tokens)):
            if place >= prompt:
                total -= log_probs[place - 1, tokens[place]]
                count += 1
    return total / count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_is_the_mean_over_completion_tokens(prepared: Prepared, kind: str, packing: bool) -> None:
    workload = prepared(kind=kind, packing=packing)
    model = workload.build_model(device=CPU, dtype=torch.float64)
    batch = workload.batch(model, step=0, seeds=[3], batch_size=4)

    (loss,) = workload.losses(model, batch, num_configs=1)

    expected = reference_loss(model, workload, drawn(workload, batch))
    # The norms of LLaMA and Qwen compute in float32 whatever the model's dtype is.
    assert abs(float(loss) - float(expected)) < (1e-9 if kind == "gpt2" else 1e-6)


def drawn(workload: Any, batch: dict[str, torch.Tensor]) -> list[int]:
    """Which training examples a batch holds, found by their tokens."""
    known = {tuple(workload.data.train.example(i).tolist()): i for i in range(len(workload.data.train))}
    segments = batch.get("segments", batch["real"].long())
    found = []
    for tokens, numbers in zip(batch["tokens"], segments, strict=True):
        for number in range(1, int(numbers.max()) + 1):
            found.append(known[tuple(tokens[numbers == number].tolist())])
    return found


def test_the_mask_covers_the_answer_and_the_end_of_text_alone(prepared: Prepared) -> None:
    workload = prepared()
    model = workload.build_model(device=CPU, dtype=torch.float32)
    batch = workload.batch(model, step=0, seeds=[0], batch_size=8)

    tokenizer = workload.tokenizer
    for tokens, learnt, real in zip(batch["tokens"], batch["learnt"], batch["real"], strict=True):
        text = tokenizer.decode(tokens[real])
        question, answer = text.split("\nAnswer:")
        assert tokenizer.decode(tokens[learnt]) == answer
        assert answer.endswith("</s>")
        assert tokenizer.decode(tokens[real & ~learnt]) == f"{question}\nAnswer:"


@pytest.mark.parametrize(("kind", "tolerance"), [("gpt2", 1e-12), ("llama", 1e-5), ("qwen2", 1e-5)])
def test_a_rows_loss_depends_on_neither_padding_nor_neighbours(
    prepared: Prepared, kind: str, tolerance: float
) -> None:
    workload = prepared(kind=kind)
    model = adapted(workload, grid())
    train_set = workload.data.train
    order = np.argsort(train_set.lengths)
    short, long = int(order[0]), int(order[-1])

    def loss_of_first(others: list[int]) -> torch.Tensor:
        batch = padded_rows(train_set, [short, *others] * 4)
        losses = workload.losses(model, batch | {"num_learnt": torch.ones(4)}, num_configs=4)
        rest = torch.zeros(4, dtype=torch.float64)
        if others:
            rest = workload.losses(
                model, padded_rows(train_set, others * 4) | {"num_learnt": torch.ones(4)}, num_configs=4
            )
        return losses - rest

    alone, beside = loss_of_first([]), loss_of_first([long])
    assert train_set.lengths[long] > train_set.lengths[short] + 3
    assert (alone - beside).abs().max() < tolerance
    assert len(set(alone.tolist())) == 4


def test_packed_rows_give_the_gradient_of_padded_rows(prepared: Prepared) -> None:
    packed = prepared(kind="gpt2", packing=True, max_tokens=128)
    model = adapted(packed, grid()[:1])
    batch = packed.batch(model, step=0, seeds=[0], batch_size=5)
    parameters = [p for p in model.parameters() if p.requires_grad]

    indices = drawn(packed, batch)
    assert len(indices) > 5
    same = padded_rows(packed.data.train, indices)
    same["num_learnt"] = same["learnt"].sum()[None]
    first = torch.autograd.grad(packed.losses(model, batch, num_configs=1).sum(), parameters)
    second = torch.autograd.grad(packed.losses(model, same, num_configs=1).sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(first, second, strict=True))


def test_a_batch_is_a_function_of_step_and_seed_and_an_epoch_shows_every_example_once(
    prepared: Prepared,
) -> None:
    workload = prepared()
    model = workload.build_model(device=CPU, dtype=torch.float32)
    again = workload.batch(model, step=7, seeds=[1, 1, 2], batch_size=3)

    assert torch.equal(again["tokens"][:3], again["tokens"][3:6])
    assert not torch.equal(again["tokens"][:3], again["tokens"][6:])
    size = len(workload.data.train)
    seen = [
        index
        for step in range(size)
        for index in drawn(workload, workload.batch(model, step=step, seeds=[4], batch_size=2))
    ]
    assert sorted(seen[:size]) == sorted(seen[size:]) == list(range(size))
    assert seen[:size] != seen[size:]


def test_micro_batches_add_up_to_the_whole(prepared: Prepared) -> None:
    workload = prepared(accumulation=3)
    model = adapted(workload, grid())
    batch = workload.batch(model, step=0, seeds=[0, 1, 2, 3], batch_size=5)

    parts = workload.micro_batches(batch, num_configs=4)

    assert [len(part["tokens"]) for part in parts] == [8, 8, 4]
    whole = workload.losses(model, batch, num_configs=4)
    summed = sum(workload.losses(model, part, num_configs=4) for part in parts)
    assert torch.allclose(whole, summed, atol=1e-6)


def test_accumulation_does_not_change_the_training(prepared: Prepared) -> None:
    curves = []
    for accumulation in (1, 3):
        steps, _ = train(prepared(kind="gpt2", accumulation=accumulation), grid(), steps=4, dtype="float64")
        curves.append([curve(steps, metric) for metric in ("train_loss", "grad_norm", "eval_loss")])
    for whole, parts in zip(*curves, strict=True):
        assert np.allclose(whole, parts, rtol=0, atol=1e-10)


def test_gradient_checkpointing_changes_nothing_but_memory(prepared: Prepared) -> None:
    gradients = []
    for option in (False, True):
        workload = prepared(kind="gpt2", gradient_checkpointing=option)
        model = adapted(workload, grid())
        assert model.training == option
        batch = workload.batch(model, step=0, seeds=[0] * 4, batch_size=2)
        loss = workload.losses(model, batch, num_configs=4).sum()
        gradients.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))


def test_chunked_logits_give_the_same_loss_and_gradient(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = prepared(kind="gpt2")
    model = adapted(workload, grid())
    batch = workload.batch(model, step=0, seeds=[0] * 4, batch_size=2)
    parameters = [p for p in model.parameters() if p.requires_grad]
    results = []
    for chunk in (2**24, 259 * 5):
        monkeypatch.setattr("lora_alpha.workloads.huggingface.model.token_losses.CHUNK_LOGITS", chunk)
        losses = workload.losses(model, batch, num_configs=4)
        results.append([losses, *torch.autograd.grad(losses.sum(), parameters)])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*results, strict=True))


def test_drift_is_the_divergence_from_the_base_on_prompts(prepared: Prepared) -> None:
    workload = prepared(kind="gpt2", num_eval=3)
    model = adapted(workload, grid())
    (drift,) = workload.evaluate(model, num_configs=4)["forgetting_loss"][1:2]

    base = workload.build_model(device=CPU, dtype=torch.float64)
    model.requires_grad_(False)
    total = count = 0.0
    held_out = workload.held_out
    for index in range(len(held_out)):
        tokens = torch.tensor(held_out.example(index)).long()[None]
        before = base(input_ids=tokens).logits.log_softmax(-1)[0]
        after = model(input_ids=tokens.repeat(4, 1)).logits.log_softmax(-1)[1]
        for place in range(1, int(held_out.prompt_lengths[index])):
            total += F.kl_div(after[place - 1], before[place - 1], reduction="sum", log_target=True)
            count += 1
    assert abs(float(drift) - float(total / count)) < 1e-9


def test_a_source_text_replaces_the_drift(prepared: Prepared, tmp_path: Any) -> None:
    source = tmp_path / "source.txt"
    source.write_text("The quick brown fox jumps over the lazy dog. " * 20)
    workload = prepared(source_data=str(source), kind="gpt2")
    model = workload.build_model(device=CPU, dtype=torch.float64)
    (loss,) = workload.evaluate(model, num_configs=1)["forgetting_loss"]

    windows = [workload._source.example(i) for i in range(len(workload._source))]
    assert max(len(window) for window in windows) == 64
    nats = [
        F.cross_entropy(
            model(input_ids=torch.tensor(w).long()[None]).logits[0, :-1],
            torch.tensor(w).long()[1:],
            reduction="none",
        )
        for w in windows
    ]
    assert abs(float(loss) - float(torch.cat(nats).mean())) < 1e-9


def test_accuracy_counts_greedy_answers_that_end_right(prepared: Prepared) -> None:
    workload = prepared(
        "hf-reasoning-sft", kind="gpt2", accuracy_prompts=3, max_new_tokens=4, answer_pattern=".+"
    )
    model = adapted(workload, grid())
    assert workload.evaluate(model, num_configs=4)["accuracy"].tolist() == [0.0] * 4

    prompts, answers = workload._questions
    assert len(prompts) == len(answers) == 3
    repeated = torch.tensor(prompts[1]).long()[None].repeat(4, 1)
    given = model.generate(
        repeated, attention_mask=torch.ones_like(repeated), max_new_tokens=4, do_sample=False, pad_token_id=2
    )
    for config, tokens in enumerate(given):
        text = workload.tokenizer.decode(tokens[len(prompts[1]) :], skip_special_tokens=True)
        # What configuration `config` writes is made the right answer of the second prompt: a third is right.
        workload._questions = (prompts, ["no", text, "no"])
        assert workload.evaluate(model, num_configs=4)["accuracy"][config] == pytest.approx(1 / 3)
