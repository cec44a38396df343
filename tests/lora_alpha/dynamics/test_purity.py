import pytest
import torch

from lora_alpha.dynamics.purity import combine_descents, descent, gradient_norms, purity_metrics
from lora_alpha.dynamics.signal_drift import step_statistics

N, R, I, O = 3, 4, 12, 10


def make_case(tokens, *, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factors = {
        "lora_A": draw(N, R, I),
        "lora_B": draw(N, O, R),
        "delta_A": 0.1 * draw(N, R, I),
        "delta_B": 0.1 * draw(N, O, R),
        "scale": torch.tensor([0.5, 2.0, 64.0], dtype=torch.float64),
    }
    x, target = draw(N, tokens, I), draw(N, tokens, O)
    W = (factors["scale"][:, None, None] * factors["lora_B"] @ factors["lora_A"]).requires_grad_()
    y = x @ W.mT
    y.retain_grad()
    (y - target).tanh().square().mean(dim=(1, 2)).sum().backward()
    change = factors["scale"][:, None, None] * (
        (factors["lora_B"] + factors["delta_B"]) @ (factors["lora_A"] + factors["delta_A"])
        - factors["lora_B"] @ factors["lora_A"]
    )
    return factors, x, y.grad, W.grad, change


def measure(factors, x, g):
    step_norm = step_statistics(**factors, A0=factors["lora_A"]).step_norm
    return descent(x, g, **factors, step_norm=step_norm, gradient_norm=gradient_norms(x, g))


@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_equals_the_cosine_with_the_full_weight_gradient(tokens):
    """Few tokens go by token Grams, many by blocks of rows."""
    factors, x, g, gradient, change = make_case(tokens)
    found = measure(factors, x, g)
    inner = (gradient * change).sum(dim=(1, 2))
    norm = gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(found.inner, inner, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(found.gradient_norm, norm, rtol=1e-12, atol=0)
    expected = -inner / (norm * change.flatten(1).norm(dim=1))
    torch.testing.assert_close(found.purity, expected, rtol=1e-11, atol=1e-13)


def test_token_blocks_and_row_blocks_agree(monkeypatch):
    monkeypatch.setattr("lora_alpha.dynamics.purity.TOKEN_BLOCK", 2)
    monkeypatch.setattr("lora_alpha.dynamics.purity.ROW_BLOCK", 3)
    for tokens in (5, 40):
        _, x, g, gradient, _ = make_case(tokens)
        torch.testing.assert_close(gradient_norms(x, g), gradient.flatten(1).norm(dim=1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("tokens", [3, 40])
def test_float32_tokens_keep_five_digits(tokens):
    factors, x, g, _, _ = make_case(tokens)
    exact = measure(factors, x, g)
    single = measure({name: value.float() for name, value in factors.items()}, x.float(), g.float())
    assert single.purity.dtype == torch.float64
    torch.testing.assert_close(single.gradient_norm, exact.gradient_norm, rtol=1e-5, atol=0)
    torch.testing.assert_close(single.purity, exact.purity, rtol=1e-5, atol=1e-6)


def test_configurations_in_blocks_change_nothing(monkeypatch):
    factors, x, g, _, _ = make_case(5)
    whole = measure(factors, x, g)
    monkeypatch.setattr("lora_alpha.dynamics.purity.BLOCK_BYTES", 1)
    assert measure(factors, x, g).purity.tolist() == pytest.approx(whole.purity.tolist(), rel=1e-13)


def test_a_step_down_the_gradient_has_purity_one():
    """A = I and δB = -lr·G: then δW = -lr·s·G exactly."""
    _, x, g, gradient, _ = make_case(40)
    eye = torch.eye(I, dtype=torch.float64).expand(N, I, I)
    factors = {
        "lora_A": eye,
        "lora_B": torch.zeros(N, O, I, dtype=torch.float64),
        "delta_A": torch.zeros(N, I, I, dtype=torch.float64),
        "delta_B": -0.01 * gradient,
        "scale": torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64),
    }
    torch.testing.assert_close(measure(factors, x, g).purity, torch.ones(N, dtype=torch.float64))


def test_no_step_and_no_gradient_have_purity_zero():
    factors, x, g, _, _ = make_case(4)
    still = factors | {"delta_A": 0 * factors["delta_A"], "delta_B": 0 * factors["delta_B"]}
    assert measure(still, x, g).purity.tolist() == [0, 0, 0]
    assert measure(factors, x, 0 * g).purity.tolist() == [0, 0, 0]


def test_total_is_the_cosine_of_all_layers_together():
    cases = [make_case(5, seed=seed) for seed in (1, 2)]
    layers = [measure(factors, x, g) for factors, x, g, _, _ in cases]
    inner = sum((gradient * change).sum(dim=(1, 2)) for *_, gradient, change in cases)
    gradient_square = sum(gradient.square().sum(dim=(1, 2)) for *_, gradient, _ in cases)
    change_square = sum(change.square().sum(dim=(1, 2)) for *_, change in cases)
    expected = -inner / (gradient_square * change_square).sqrt()
    torch.testing.assert_close(combine_descents(layers).purity, expected, rtol=1e-11, atol=1e-13)
    named = purity_metrics({"a": layers[0], "b": layers[1]})
    assert list(named) == ["purity", "purity/a", "purity/b"]
