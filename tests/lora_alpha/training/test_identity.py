"""α×k at η is the very same training as lr_A = η, lr_B = k·η with ε_B = ε/k and λ_B = λ/k (Adam, B0 = 0).

With the factor pair (s, B) the weight is s·B·A. Multiplying s by k and dividing B by k changes nothing; Adam
divides the gradient of B by its own size, so B moves by its lr alone, whatever s is.
"""

import numpy as np
import pytest

from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.workloads.registry import load_workload

STEPS = 100


def curves(workload_name, options, configurations, **changes):
    """Training losses (N, steps) and the last held-out losses (N,)."""
    settings = {
        "workload": workload_name,
        "workload_options": options,
        "steps": STEPS,
        "batch_size": 16,
        "dtype": "float64",
        "warmup": 5,
        "weight_decay": 0.1,
        "eps": 1e-6,
        "eval_every": 50,
    }
    train = TrainSpec(**(settings | changes))
    workload = load_workload(workload_name, options)
    losses, held_out = [], None
    for event in train_pack(workload, train, configurations):
        for block in getattr(event, "blocks", ()):
            if block.metric == "train_loss":
                losses.append(block.values)
            elif block.metric == "eval_loss":
                held_out = block.values[:, -1]
    return np.concatenate(losses, axis=1), held_out


def pair(k, *, method="lora", rank=4, alpha=16.0, lr=1e-3, seed=0):
    """α×k, and the same with k moved into B's learning rate."""
    shared = {"method": method, "rank": rank, "lr": lr, "seed": seed}
    return [
        Configuration(alpha=k * alpha, **shared),
        Configuration(alpha=alpha, lr_ratio=k, eps_ratio=1 / k, weight_decay_ratio=1 / k, **shared),
    ]


@pytest.mark.parametrize("k", [2, 16, 256])
def test_a_power_of_two_is_bitwise_the_same_training(k):
    losses, held_out = curves("mlp", {"width": 24}, pair(k))
    assert losses.shape == (2, STEPS)
    assert losses[0].tobytes() == losses[1].tobytes()
    assert held_out[0].tobytes() == held_out[1].tobytes()
    assert losses[0, -1] != losses[0, 0]


@pytest.mark.parametrize("method", ["lora", "rslora"])
@pytest.mark.parametrize("k", [3, 10, 1 / 7])
def test_any_other_factor_agrees_to_rounding(k, method):
    losses, held_out = curves("mlp", {"width": 24}, pair(k, method=method))
    assert np.abs(losses[0] - losses[1]).max() <= 1e-12 * np.abs(losses).max()
    assert abs(held_out[0] - held_out[1]) <= 1e-12


def test_pairs_of_several_ranks_and_seeds_share_one_pack():
    configurations = [c for rank, seed in ((1, 0), (4, 1), (8, 2)) for c in pair(8, rank=rank, seed=seed)]
    losses, _ = curves("mlp", {"width": 24}, configurations)
    for first in range(0, 6, 2):
        np.testing.assert_allclose(losses[first], losses[first + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dropped", ["eps_ratio", "weight_decay_ratio"])
def test_without_its_conditions_the_identity_fails(dropped):
    scaled, moved = pair(16)
    losses, _ = curves("mlp", {"width": 24}, [scaled, moved.model_copy(update={dropped: 1.0})], eps=1e-3)
    assert np.abs(losses[0] - losses[1]).max() > 1e-6


def test_clipping_breaks_it_because_it_sees_both_gradients_at_once():
    losses, _ = curves("mlp", {"width": 24}, pair(16), clip=0.5)
    assert np.abs(losses[0] - losses[1]).max() > 1e-6


def test_with_A_frozen_alpha_and_lr_are_one():
    """LoRA-FA: what is left of α×k is B's learning rate, so that α×k is η×k."""
    k = 16
    scaled, _ = pair(k, method="lora-fa")
    faster = Configuration(
        method="lora-fa",
        rank=4,
        alpha=16.0,
        lr=k * 1e-3,
        seed=0,
        eps_ratio=1 / k,
        weight_decay_ratio=1 / k,
    )
    losses, _ = curves("mlp", {"width": 24}, [scaled, faster])
    assert losses[0].tobytes() == losses[1].tobytes()


def test_with_A_trained_alpha_and_lr_are_two():
    k = 16
    scaled, _ = pair(k)
    faster = Configuration(
        method="lora", rank=4, alpha=16.0, lr=k * 1e-3, eps_ratio=1 / k, weight_decay_ratio=1 / k
    )
    losses, _ = curves("mlp", {"width": 24}, [scaled, faster])
    assert np.abs(losses[0] - losses[1]).max() > 1e-3
