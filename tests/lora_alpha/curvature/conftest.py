"""A tiny transformer block in float64, in three shapes: probed, fused attention, plain formula."""

import math
import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_alpha.models.group_layer import LayerFactors

D, HEADS, HIDDEN, RANK = 16, 2, 32, 9
TARGETS = ["q", "k", "v", "o", "up", "down"]


class Block(nn.Module):
    """Causal attention and a GELU MLP with residuals, then a fixed read-out to 7 classes."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        for name in ("q", "k", "v", "o"):
            setattr(self, name, nn.Linear(D, D, bias=False))
        self.up, self.down = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, D)
        self.register_buffer("head", torch.zeros(7, D))

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mask = torch.ones(t, t, dtype=torch.bool).tril()
            scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
            mixed = scores.softmax(-1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(n, t, D))
        return F.linear(x + self.down(F.gelu(self.up(x))), self.head)


@dataclass
class BlockWorkload:
    """The part of a workload that a probe needs."""

    name: str = "block"

    def batch(self, model, *, step, seeds, batch_size):
        generator = torch.Generator().manual_seed(1000 * seeds[0] + step)
        x = torch.randn(batch_size, 6, D, generator=generator, dtype=torch.float64)
        return {"x": x, "y": torch.randint(0, 7, (batch_size, 6), generator=generator)}

    def losses(self, model, batch, *, num_configs):
        logits = model(batch["x"].to(model.head))
        return F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten(), reduction="mean")[None]


def make_block(*, fused: bool, dtype: torch.dtype = torch.float64) -> Block:
    torch.manual_seed(0)
    block = Block(fused=fused).double()
    block.head.copy_(torch.randn(7, D) * 2)
    return block.to(dtype).requires_grad_(False)


def make_factors(*, zero_B: bool = False, scale: float = 1.5) -> dict[str, LayerFactors]:
    generator = torch.Generator().manual_seed(1)
    factors = {}
    for name in TARGETS:
        linear = getattr(make_block(fused=True), name)
        lora_A = torch.randn(RANK, linear.in_features, generator=generator, dtype=torch.float64) / 4
        lora_B = torch.randn(linear.out_features, RANK, generator=generator, dtype=torch.float64) / 8
        factors[name] = LayerFactors(lora_A, lora_B * (not zero_B), scale)
    return factors


@pytest.fixture(scope="session")
def block():
    return make_block(fused=True)


@pytest.fixture(scope="session")
def workload():
    return BlockWorkload()


@pytest.fixture(scope="session")
def factors():
    return make_factors()


@pytest.fixture(scope="session")
def factors_at_start():
    return make_factors(zero_B=True)


@dataclass(frozen=True)
class Dense:
    """A dense Hessian, gradient and the tensors it belongs to."""

    hessian: Tensor
    gradient: Tensor
    tensors: list[Tensor]


def dense_hessian(space: str, factors: dict[str, LayerFactors]) -> Dense:
    """By forward-over-reverse on the plain attention formula: shares no route with the operator."""
    model = make_block(fused=False)
    batch = BlockWorkload().batch(model, step=0, seeds=[0], batch_size=8)
    if space == "lora":
        tensors = [t for name in TARGETS for t in (factors[name].A, factors[name].B)]
    else:
        tensors = [
            getattr(model, name).weight + factors[name].scale * factors[name].B @ factors[name].A
            for name in TARGETS
        ]
    shapes, sizes = [t.shape for t in tensors], [t.numel() for t in tensors]

    def loss(point: Tensor) -> Tensor:
        pieces = [p.view(s) for p, s in zip(point.split(sizes), shapes, strict=True)]
        state = dict(model.state_dict())
        for index, name in enumerate(TARGETS):
            if space == "lora":
                low_rank = factors[name].scale * pieces[2 * index + 1] @ pieces[2 * index]
                state[f"{name}.weight"] = state[f"{name}.weight"] + low_rank
            else:
                state[f"{name}.weight"] = pieces[index]
        logits = torch.func.functional_call(model, state, (batch["x"],))
        return F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten())

    point = torch.cat([t.detach().reshape(-1) for t in tensors])
    gradient = torch.func.grad(loss)
    column = torch.func.vmap(lambda v: torch.func.jvp(gradient, (point,), (v,))[1], chunk_size=128)
    with warnings.catch_warnings():
        # torch's own forward-mode rules are scripted on first use
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        hessian = column(torch.eye(len(point), dtype=torch.float64))
    return Dense((hessian + hessian.T) / 2, gradient(point), [t.detach() for t in tensors])


@pytest.fixture(scope="session")
def dense(factors):
    """Dense references at a trained point, by space, made once."""
    return {space: dense_hessian(space, factors) for space in ("lora", "full")}


@pytest.fixture(scope="session")
def dense_at_start(factors_at_start):
    return {space: dense_hessian(space, factors_at_start) for space in ("lora", "full")}
