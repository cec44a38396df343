"""Which modules can carry adapters, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lora_alpha.errors import FieldProblem, InvalidSpec


def linear_weight(module: nn.Module) -> Tensor:
    """The weight of a target as (out, in), whatever way the module stores it."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T


def linear_bias(module: nn.Module) -> Tensor | None:
    """The bias of a target, if it has one."""
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Refuse modules on which a packed adapter would be wrong or without effect.

    Allowed are ``nn.Linear`` and transformers' ``Conv1D`` with a floating-point weight of their own.

    Raises:
        InvalidSpec: With every target that is something else, and why.
    """
    if not targets:
        raise InvalidSpec([FieldProblem("targets", "no layer is chosen: name at least one linear layer")])
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    problems = []
    seen: dict[int, str] = {}
    for name in targets:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            problems.append(FieldProblem("targets", f"{name}: the model has no such layer"))
            continue
        reason = _objection(module, embeddings)
        if reason is None and id(module) in seen:
            reason = f"is the same module as {seen[id(module)]}; name it once"
        if reason is not None:
            problems.append(FieldProblem("targets", f"{name} {reason}"))
        seen[id(module)] = name
    if problems:
        raise InvalidSpec(problems)


def _objection(module: nn.Module, embeddings: set[int]) -> str | None:
    kind = type(module)
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear) or _is_conv1d(module):
        assert isinstance(weight, Tensor)
        if not weight.is_floating_point():
            return f"holds {str(weight.dtype).removeprefix('torch.')} weights: load the model unquantised"
        if id(weight) in embeddings:
            return "shares its weight with an embedding: adapting it would untie the two; leave it out"
    if kind is nn.Linear or _is_conv1d(module):
        return None
    if isinstance(module, nn.Linear) and kind.__module__.startswith("torch.nn"):
        return f"is {kind.__name__}, whose owner reads the weight without calling it; leave it out"
    if isinstance(module, nn.Linear) or weight is not None and "inear" in kind.__name__:
        whole = f"{kind.__module__}.{kind.__name__}"
        return f"is {whole}, a quantised or special layer: load the model unquantised"
    return f"is {kind.__name__}: choose linear layers"


def _is_conv1d(module: nn.Module) -> bool:
    # By name: this must not import transformers for a model that does not come from there.
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")
