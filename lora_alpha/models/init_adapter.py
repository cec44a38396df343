"""Starting every configuration of a pack from one given adapter instead of B = 0."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.models.group_layer import GroupLayer
from lora_alpha.models.packed import PackedAdapters

FIELD = "init_adapter"


@torch.no_grad()
def start_from(adapters: PackedAdapters, given: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put every configuration where ``given`` is: the adapted model computes what the given one did.

    B is multiplied by s_given/s, so that configurations of any α start from the same function and α is still
    what it multiplies updates by. With an α schedule this holds for the configuration's own α.

    Args:
        adapters: Freshly injected.
        given: Layer → ``A`` (r, I), ``B`` (O, r), ``scale`` () and what the method reads beside them.

    Raises:
        InvalidSpec: If layers, ranks or methods do not fit, with each that does not.
    """
    problems = list(_layer_problems(adapters, given))
    for name, group, layer in adapters.group_layers():
        if name in given:
            methods = dict.fromkeys(c.method for c in adapters.configurations[group.start : group.stop])
            for method in methods:
                problems += _fit_problems(name, layer, given[name], rank=group.rank, method=method)
    if problems:
        raise InvalidSpec([FieldProblem(FIELD, message) for message in dict.fromkeys(problems)])
    for name, group, layer in adapters.group_layers():
        for group_index in range(group.stop - group.start):
            layer.start_from(given[name], group_index)


def _layer_problems(adapters: PackedAdapters, given: Mapping[str, object]) -> list[str]:
    missing = [name for name in adapters.layers if name not in given]
    extra = [name for name in given if name not in adapters.layers]
    problems = []
    if missing:
        problems.append(
            f"the adapter lacks {len(missing)} of the {len(adapters.layers)} adapted layers, "
            f"e.g. {missing[0]}: adapt those layers only that it has"
        )
    if extra:
        problems.append(
            f"the adapter has {len(extra)} layers that are not adapted here, e.g. {extra[0]}: "
            "add them to the targets"
        )
    return problems


def _fit_problems(
    name: str, layer: GroupLayer, given: Mapping[str, Tensor], *, rank: int | None, method: str
) -> list[str]:
    problem = METHODS[method].start_problem(given)
    if problem is not None:
        return [problem]
    own = layer.export(0)
    if len(given["A"]) != len(own["A"]):
        return [f"the adapter has rank {len(given['A'])} in {name}, a run of rank {rank} has {len(own['A'])}"]
    return [
        f"lora_{factor} of {name} has shape {tuple(given[factor].shape)} in the adapter, "
        f"{tuple(own[factor].shape)} here: is it an adapter of another model?"
        for factor in ("A", "B")
        if given[factor].shape != own[factor].shape
    ]
