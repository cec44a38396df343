"""PiSSA starts from the base, and its update is no difference of large numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration


def pissa_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 16)).double().requires_grad_(False)
    pack = [Configuration(method="pissa", rank=3, alpha=6.0, lr=1.0, seed=seed) for seed in range(2)]
    adapters = inject(model, ["0"], pack)
    ((_, _, layer),) = adapters.group_layers()
    return model, adapters, layer


def test_pissa_starts_exactly_from_the_base():
    model, adapters, _ = pissa_layer()
    x = torch.randn(8, 24, dtype=torch.float64)
    with adapters.disabled():
        base = model(x)
    assert torch.equal(model(x), base)
    assert adapters.norms()["update_norm"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_pissas_update_is_no_difference_of_large_numbers(size):
    model, adapters, layer = pissa_layer()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in (layer.A, layer.B):
            factor += size * torch.randn(factor.shape, generator=generator, dtype=factor.dtype)
    changed_B, changed_A = layer.B - layer.B0, layer.A - layer.A0
    update = 2.0 * (layer.B0 @ changed_A + changed_B @ layer.A0 + changed_B @ changed_A)
    torch.testing.assert_close(
        adapters.norms()["update_norm"], torch.linalg.matrix_norm(update).detach(), rtol=1e-6, atol=0
    )
    x = torch.randn(2, 5, 24, generator=generator, dtype=torch.float64)
    with adapters.disabled():
        base = model(x)
    torch.testing.assert_close(model(x), base + x @ update.mT, rtol=1e-14, atol=1e-14)
