"""Starting every configuration of a pack from one given adapter instead of B = 0."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.models.methods import Dora, GroupLayer, LowRank, Pissa
from lora_alpha.models.packed import PackedAdapters

FIELD = "init_adapter"


@torch.no_grad()
def start_from(adapters: PackedAdapters, given: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put every configuration where ``given`` is: the adapted model computes what the given one did.

    B is multiplied by s_given/s, so that configurations of any α start from the same function and α is still
    what it multiplies updates by. With an α schedule this holds for the configuration's own α.

    Args:
        adapters: Freshly injected.
        given: Layer → ``A`` (r, I), ``B`` (O, r), ``scale`` (), for DoRA ``magnitude`` (O,).

    Raises:
        InvalidSpec: If layers, ranks or methods do not fit, with each that does not.
    """
    problems = list(_layer_problems(adapters, given))
    for name, group, layer in adapters.group_layers():
        if name in given:
            problems += _fit_problems(name, layer, given[name], rank=group.rank, method=group.method)
    if problems:
        raise InvalidSpec([FieldProblem(FIELD, message) for message in dict.fromkeys(problems)])
    for name, group, layer in adapters.group_layers():
        for place in range(group.stop - group.start):
            layer.load(_rescaled(given[name], layer, place), place)


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
    name: str, layer: GroupLayer, parts: Mapping[str, Tensor], *, rank: int | None, method: str
) -> list[str]:
    if not isinstance(layer, LowRank) or isinstance(layer, Pissa):
        return [f"{method} cannot start from a low-rank adapter: choose a LoRA method"]
    if isinstance(layer, Dora) != ("magnitude" in parts):
        kind = "a DoRA adapter" if "magnitude" in parts else "an adapter without magnitudes"
        return [f"{method} cannot start from {kind}"]
    shapes = {"A": layer.A.shape[1:], "B": layer.B.shape[1:]}
    if len(parts["A"]) != shapes["A"][0]:
        return [
            f"the adapter has rank {len(parts['A'])} in {name}, a run of rank {rank} has {shapes['A'][0]}"
        ]
    return [
        f"lora_{factor} of {name} has shape {tuple(parts[factor].shape)} in the adapter, "
        f"{tuple(shape)} here: is it an adapter of another model?"
        for factor, shape in shapes.items()
        if parts[factor].shape != shape
    ]


def _rescaled(parts: Mapping[str, Tensor], layer: GroupLayer, place: int) -> dict[str, Tensor]:
    ratio = float(parts["scale"]) / float(layer.scale_G[place])
    return {**parts, "B": parts["B"] * ratio}
