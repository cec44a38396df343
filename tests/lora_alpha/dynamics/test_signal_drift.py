import pytest
import torch

from lora_alpha.dynamics.signal_drift import combine_layers, layered_metrics, signal_drift, step_statistics

N, R, I, O = 3, 4, 20, 15


def random_step(*, seed=0, size=1e-2, zero_B0=True):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A0, B0 = draw(N, R, I), draw(N, O, R) * (not zero_B0)
    A, B = A0 + 0.1 * draw(N, R, I), B0 + 0.1 * draw(N, O, R)
    return {
        "lora_A": A,
        "lora_B": B,
        "delta_A": size * draw(N, R, I),
        "delta_B": size * draw(N, O, R),
        "scale": torch.tensor([0.5, 2.0, 64.0], dtype=torch.float64),
        "A0": A0,
        "B0": B0,
    }


def dense(step):
    """Every quantity from out×in matrices."""
    A, B, dA, dB = (step[name] for name in ("lora_A", "lora_B", "delta_A", "delta_B"))
    s = step["scale"][:, None, None]
    signal, drift = s * (dB @ A + B @ dA), s * dB @ dA
    update = s * ((B + dB) @ (A + dA) - step["B0"] @ step["A0"])
    norms = [matrix.flatten(1).norm(dim=1) for matrix in (signal, drift, update)]
    return {
        "signal_norm": norms[0],
        "drift_norm": norms[1],
        "drift_ratio": norms[1] / norms[0],
        "update_norm": norms[2],
        "stable_rank": (norms[2] / torch.linalg.matrix_norm(update, 2)) ** 2,
        "rel_change_A": (A + dA - step["A0"]).flatten(1).norm(dim=1) / step["A0"].flatten(1).norm(dim=1),
    }


@pytest.mark.parametrize("zero_B0", [True, False])
def test_equals_dense_matrices(zero_B0):
    step = random_step(zero_B0=zero_B0)
    found = signal_drift(**step)
    expected = dense(step)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        tolerance = 1e-11 if name == "stable_rank" else 1e-12
        torch.testing.assert_close(found[name], values, rtol=tolerance, atol=0, msg=name)


def test_step_norm_is_that_of_signal_and_drift_together():
    step = random_step(size=0.5)
    before = step["lora_B"] @ step["lora_A"]
    after = (step["lora_B"] + step["delta_B"]) @ (step["lora_A"] + step["delta_A"])
    expected = step["scale"] * (after - before).flatten(1).norm(dim=1)
    torch.testing.assert_close(step_statistics(**step).step_norm, expected, rtol=1e-12, atol=0)


def test_zero_pads_change_nothing():
    step = random_step(zero_B0=False)
    padded = {
        name: torch.cat([step[name], torch.zeros(N, 3, I)], dim=1)
        if name.endswith(("A", "A0"))
        else torch.cat([step[name], torch.zeros(N, O, 3)], dim=2)
        for name in ("lora_A", "delta_A", "A0", "lora_B", "delta_B", "B0")
    }
    plain, found = signal_drift(**step), signal_drift(**padded, scale=step["scale"])
    for name, values in plain.items():
        torch.testing.assert_close(found[name], values, rtol=1e-12, atol=0, msg=name)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9])
def test_a_step_that_only_exchanges_factors_keeps_its_digits(size):
    """δB·A = -B·δA up to a small rest: in a Gram sum the rest would drown below 1e-8 of the terms."""
    step = random_step()
    generator = torch.Generator().manual_seed(9)
    mix = torch.randn(N, R, R, generator=generator, dtype=torch.float64)
    rest = torch.randn(N, O, R, generator=generator, dtype=torch.float64)
    step["delta_A"] = mix @ step["lora_A"]
    step["delta_B"] = -step["lora_B"] @ mix + size * rest
    found = signal_drift(**step)
    # The dense sum cancels too; the rest is known exactly.
    expected = step["scale"] * size * (rest @ step["lora_A"]).flatten(1).norm(dim=1)
    torch.testing.assert_close(found["signal_norm"], expected, rtol=1e-14 / size + 1e-10, atol=0)


def test_a_small_update_of_a_large_start_keeps_its_digits():
    """As under PiSSA: B0·A0 is large and s(BA - B0A0) tiny beside it."""
    step = random_step(zero_B0=False)
    step["lora_A"], step["lora_B"] = step["A0"].clone(), step["B0"].clone()
    step["delta_A"], step["delta_B"] = 1e-9 * step["delta_A"], 1e-9 * step["delta_B"]
    found = signal_drift(**step)
    exact = step["scale"] * (
        (step["delta_B"] @ step["A0"] + step["B0"] @ step["delta_A"]).flatten(1).norm(dim=1)
    )
    torch.testing.assert_close(found["update_norm"], exact, rtol=1e-5, atol=0)  # δ read back from A + δA
    torch.testing.assert_close(found["signal_norm"], exact, rtol=1e-12, atol=0)


def test_float32_factors_are_measured_in_float64():
    step = random_step(size=1e-4)
    single = {name: values.float() for name, values in step.items()}
    expected = dense({name: values.double() for name, values in single.items()})
    for name, values in signal_drift(**single).items():
        assert values.dtype == torch.float64
        torch.testing.assert_close(values, expected[name], rtol=1e-12, atol=0, msg=name)


def test_first_step_has_no_drift_and_a_still_one_no_ratio():
    step = random_step()
    step["delta_A"] = torch.zeros_like(step["delta_A"])
    assert signal_drift(**step)["drift_ratio"].tolist() == [0, 0, 0]
    still = {name: torch.zeros_like(values) for name, values in step.items()} | {"scale": step["scale"]}
    still["A0"] = still["lora_A"] = step["A0"]
    found = signal_drift(**still)
    assert all(values.tolist() == [0, 0, 0] for values in found.values())


def test_a_diverged_configuration_is_nan_and_leaves_the_others_alone():
    step = random_step()
    clean = signal_drift(**step)
    step["delta_B"] = step["delta_B"].clone()
    step["delta_B"][1, 0, 0] = torch.inf
    for name, values in signal_drift(**step).items():
        if name != "rel_change_A":  # that of A, which is still finite
            assert not bool(torch.isfinite(values[1])), name
        assert values[[0, 2]].tolist() == clean[name][[0, 2]].tolist()


def test_layers_add_up_as_a_block_diagonal_weight():
    steps = [random_step(seed=seed) for seed in (1, 2)]
    parts = [step_statistics(**step) for step in steps]
    total = combine_layers(parts).metrics()
    singles = [dense(step) for step in steps]
    for name in ("signal_norm", "drift_norm", "update_norm"):
        expected = (singles[0][name].square() + singles[1][name].square()).sqrt()
        torch.testing.assert_close(total[name], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(total["drift_ratio"], total["drift_norm"] / total["signal_norm"])
    mean_rank = (singles[0]["stable_rank"] + singles[1]["stable_rank"]) / 2
    torch.testing.assert_close(total["stable_rank"], mean_rank)
    named = layered_metrics({"up": parts[0], "down": parts[1]})
    assert {"drift_ratio", "drift_ratio/up", "drift_ratio/down", "stable_rank/up"} <= named.keys()
    assert named["update_norm/down"].tolist() == parts[1].update_norm.tolist()


def test_adam_drift_ratio_grows_with_lr_and_not_with_scale():
    """|δA|, |δB| ∝ η whatever s is: the ratio is linear in η and the same at every s."""
    step = random_step(size=1e-4)
    base = signal_drift(**step)["drift_ratio"]
    step["delta_A"], step["delta_B"] = 8 * step["delta_A"], 8 * step["delta_B"]
    torch.testing.assert_close(signal_drift(**step)["drift_ratio"], 8 * base, rtol=1e-12, atol=0)
    step["scale"] = 128 * step["scale"]
    torch.testing.assert_close(signal_drift(**step)["drift_ratio"], 8 * base, rtol=1e-12, atol=0)
