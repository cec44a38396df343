"""Models that mix or reorder examples on the way to a layer are noticed; the usual families pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_alpha.errors import InvalidSpec
from lora_alpha.models.layout import check_layout
from tests.tiny_models import PIXELS, TINY_MODELS, VOCABULARY

EXAMPLES, TOKENS, WIDTH = 3, 6, 8


class Network(nn.Module):
    """``plain`` sees (examples, tokens, width); ``odd`` what the subclass makes of it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # whom a router chooses depends on the weights
            self.plain, self.odd = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = self.plain(x)
        return self.odd(self.arrange(x))


class Flat(Network):
    def arrange(self, x):
        return x.flatten(0, 1)


class TokensFirst(Network):
    def arrange(self, x):
        return x.transpose(0, 1)


class Routed(Network):
    def arrange(self, x):
        return x[x[..., 0] > 0]


class Shared(Network):
    def arrange(self, x):
        return x[:1]


class Mixing(Network):
    def arrange(self, x):
        return x + x[:1]


def check(model: nn.Module) -> None:
    examples = torch.randn(EXAMPLES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    check_layout(model, ["plain", "odd"], lambda order: model(examples[order]), num_examples=EXAMPLES)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TokensFirst, "in front of everything"),
        (Routed, "a router or a filter"),
        (Mixing, "or mixes them"),
        (Shared, "all examples share"),
    ],
)
def test_a_layer_that_cannot_tell_examples_apart_is_named(kind, message):
    with pytest.raises(InvalidSpec, match=message) as caught:
        check(kind())
    assert [problem.message.split()[0] for problem in caught.value.problems] == ["odd"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_are_flattened_in_order_pass(dtype):
    model = Flat().to(dtype)
    examples = torch.randn(EXAMPLES, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    check_layout(model, ["plain", "odd"], lambda order: model(examples[order]), num_examples=EXAMPLES)


@pytest.mark.parametrize("family", list(TINY_MODELS))
def test_the_usual_families_pass(family):
    model = TINY_MODELS[family]().eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (EXAMPLES, TOKENS), generator=generator)
    pictures = torch.randn(EXAMPLES, 3, PIXELS, PIXELS, generator=generator)

    def run(order):
        extra = {"pixel_values": pictures[order]} if family == "clip" else {}
        return model(input_ids=ids[order], **extra)

    linear = [name for name, m in model.named_modules() if type(m).__name__ in {"Linear", "Conv1D"}]
    check_layout(model, linear, run, num_examples=EXAMPLES)
