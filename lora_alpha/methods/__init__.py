"""Fine-tuning methods: one object each, which answers for everything the rest of the project asks of it.

Torch-free: API, planner and exports ask ``Method`` (``base.py``); what needs tensors is asked of the layer
that it names (``lora_alpha/models/group_layer.py``). Another installed package adds a method by an entry
point in the group ``lora_alpha.methods``: ``docs/your-method.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_alpha.entry_points import Registry
from lora_alpha.methods.base import Method as Method
from lora_alpha.methods.builtin import BUILTIN, FULL
from lora_alpha.methods.builtin import LORA as LORA

METHODS: Registry[Method] = Registry(
    "lora_alpha.methods",
    Method,
    {method.name: method for method in BUILTIN},
    name_of=lambda method: method.name,
)


def method_scale(method: str, *, rank: int | None, alpha: float | None) -> float | None:
    """The effective scale s of a configuration, or None where it has none.

    A method whose package is no longer installed has none either: its runs stay readable.

    >>> method_scale("rslora", rank=16, alpha=256)
    64.0
    """
    info = METHODS.get(method)
    return None if info is None else info.scale(rank=rank, alpha=alpha)


def recognised_method(
    config: Mapping[str, Any] | None, *, trains_A: bool = True, lr_ratio: float = 1.0
) -> Method:
    """The method of a training by somebody else's trainer.

    Args:
        config: Fields of PEFT's ``LoraConfig``, as values or as logged text; None: nothing is adapted.
        trains_A: Whether any A trains.
        lr_ratio: lr_B / lr_A.
    """
    if config is None:
        return FULL
    # From the last on: what is more special comes later.
    told = next((method for method in reversed(list(METHODS.values())) if method.describes(config)), None)
    if told is not None:
        return told
    plain = [method for method in METHODS.values() if method.layer == LORA.layer and not method.peft_config()]
    if not trains_A:
        return next(method for method in plain if not method.trains_A)
    # Another ratio than 1 is LoRA+, whichever it is.
    return next(
        method for method in plain if method.trains_A and (method.default_lr_ratio != 1) == (lr_ratio != 1)
    )
