"""Whether a model keeps examples apart and in order on their way to its linear layers.

A pack gives each configuration whole examples, one configuration after the other, and an adapted layer tells
them apart by its rows alone. A layer that has tokens in front of examples, or that a router feeds, would
train one configuration on another's examples without any error: so a model from elsewhere is tried once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lora_alpha.errors import FieldProblem, InvalidSpec

# Relative error of a mean over a layer's input when its rows are computed in another order.
EXACT, ROUNDED = 1e-5, 1e-3


@torch.no_grad()
def check_layout(
    model: nn.Module, targets: Sequence[str], run: Callable[[Tensor], object], *, num_examples: int
) -> None:
    """Refuse targets whose rows do not follow the order of the examples.

    The model runs twice, the second time on the same examples in turned order: every layer must then see its
    inputs in turned order. A layer that is not called at all is left to training, which says so.

    Args:
        model: The model, adapted or not.
        targets: Names of the layers in question.
        run: Calls the model on the examples with these indices, a tensor (num_examples,); the examples
            differ.
        num_examples: 2 or more.

    Raises:
        InvalidSpec: With every layer that sees something else.
    """
    order = torch.arange(num_examples)
    first = _seen(model, targets, run, order)
    turned = _seen(model, targets, run, order.roll(1))
    problems = [
        FieldProblem(
            "targets",
            f"{name} {reason}, so a pack could not tell its configurations apart in it: leave it out of the "
            "targets, or take another model",
        )
        for name in targets
        if (reason := _objection(first[name], turned[name], num_examples)) is not None
    ]
    if problems:
        raise InvalidSpec(problems)


def _objection(first: list[Tensor], turned: list[Tensor], num_examples: int) -> str | None:
    if any(len(x) == 1 for x in first):
        return "sees one input that all examples share (relative positions, say)"
    if [x.shape for x in first] != [x.shape for x in turned] or any(len(x) % num_examples for x in first):
        return "gets rows that a router or a filter has chosen"
    for before, after in zip(first, turned, strict=True):
        exact = before.dtype in {torch.float32, torch.float64}
        per_example = before.double().reshape(num_examples, -1)
        again = after.double().reshape(num_examples, -1)
        close = (EXACT if exact else ROUNDED) * per_example.abs().mean()
        if bool(((again - per_example.roll(1, 0)).abs().mean(1) > close).any()):
            return "does not have the examples in front of everything else, or mixes them"
    return None


def _seen(
    model: nn.Module, targets: Sequence[str], run: Callable[[Tensor], object], order: Tensor
) -> dict[str, list[Tensor]]:
    """The inputs of every call of every target."""
    inputs: dict[str, list[Tensor]] = defaultdict(list)

    def keep(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        del module
        inputs[name].append(given[0].detach())

    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(keep, name)) for name in targets]
    try:
        run(order)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs
