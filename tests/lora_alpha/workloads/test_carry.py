from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.carry import EQUALS, PLUS, add_digits, draw_problems, is_held_out

Prepared = Callable[..., Workload]


def value(digits: np.ndarray) -> np.ndarray:
    return (digits * 10 ** np.arange(digits.shape[-1])[::-1]).sum(-1)


def draw(kind: str, *, held_out: bool = False, digits: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return draw_problems([0, 1], step=5, count=400, digits=digits, kind=kind, held_out=held_out)


def test_digits_add_like_numbers() -> None:
    a, b = draw("all")

    assert np.array_equal(value(add_digits(a, b)), value(a) + value(b))


@pytest.mark.parametrize("digits", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", ["free", "carry", "all"])
def test_kinds_differ_by_their_columns(kind: str, digits: int) -> None:
    a, b = draw(kind, digits=digits)

    carries = ((a + b) > 9).any(-1)

    assert a.min() >= 0
    assert max(a.max(), b.max()) == 9
    if kind == "all":
        assert 0.2 < carries.mean() < 1
    else:
        assert carries.all() if kind == "carry" else not carries.any()


def test_carry_free_digit_pairs_are_equally_likely() -> None:
    a, b = draw_problems([0], step=0, count=20_000, digits=1, kind="free")

    pairs, counts = np.unique(np.stack([a, b], -1).reshape(-1, 2), axis=0, return_counts=True)

    every = np.array([(x, y) for x in range(10) for y in range(10 - x)])
    assert pairs.tolist() == every[~is_held_out(every[:, :1], every[:, 1:])].tolist()
    assert counts.max() < 1.5 * counts.min()


@pytest.mark.parametrize("kind", ["free", "carry", "all"])
def test_held_out_problems_are_never_trained_on(kind: str) -> None:
    assert is_held_out(*draw(kind, held_out=True)).all()
    assert not is_held_out(*draw(kind)).any()


def test_about_one_problem_in_sixteen_is_held_out() -> None:
    a, b = np.divmod(np.arange(1_000_000), 1000)
    split = np.stack([a, b])[..., None] // [100, 10, 1] % 10

    assert is_held_out(split[0], split[1]).mean() == pytest.approx(1 / 16, rel=0.02)


@pytest.mark.parametrize("order", ["ones-first", "ones-last"])
def test_tokens_spell_the_problem(prepared: Prepared, order: str) -> None:
    workload = prepared("carry", order=order)
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)

    tokens = workload.batch(model, step=0, seeds=[0], batch_size=50)["tokens"].numpy()

    a, plus, b, equals, answer = np.split(tokens, [2, 3, 5, 6], axis=1)
    assert set(plus.flat) == {PLUS}
    assert set(equals.flat) == {EQUALS}
    answer = answer[:, ::-1] if order == "ones-first" else answer
    assert np.array_equal(value(answer), value(a) + value(b))


def test_accuracy_counts_whole_answers_that_greedy_decoding_writes(prepared: Prepared) -> None:
    workload = prepared("carry", width=32, pretrain_steps=200)
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float32)

    problems = draw_problems([0], step=2**31, count=128, digits=2, kind="all", held_out=True)
    a, b = (torch.from_numpy(side.reshape(-1, 2)) for side in problems)
    plus, equals = torch.full_like(a[:, :1], PLUS), torch.full_like(a[:, :1], EQUALS)
    text = torch.cat([a, plus, b, equals], dim=1)
    for _ in range(3):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    written = value(text[:, 6:].numpy()[:, ::-1])
    right = (written == value(a.numpy()) + value(b.numpy())).mean()
    metrics = workload.evaluate(model, num_configs=1)

    assert metrics["accuracy"].item() == pytest.approx(right.item())
    assert 0 < right < 1  # carry-free problems are known, the others are not
    assert metrics["forgetting_loss"] < metrics["eval_loss"]
