"""What a fine-tuning method answers for without torch: scale, what trains, PEFT's format, points of a probe.

``layer`` names the class that trains it (``lora_alpha/models/group_layer.py`` says what that answers for).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_alpha.scaling import ScaleRule, effective_scale, shortest_alpha

Array = NDArray[Any]
Parts = Mapping[str, Array]
FACTORS = frozenset({"A", "B", "scale"})
NOTES = frozenset({"base_norm"})  # said of the base, no part of the adapter


@dataclass(frozen=True)
class Method:
    """One fine-tuning method; the defaults are LoRA's.

    A method that differs from LoRA in scale, learning rates or what trains is an object of this class (or of
    a subclass with its own :meth:`scale`). One that computes something else also has a ``layer`` of its own.

    Attributes:
        name: Key used in requests, runs and CSV.
        summary: One sentence for the form.
        rule: How PEFT gets the scale s from α for this method.
        uses_rank: False for full fine-tuning, which has neither rank nor α.
        default_lr_ratio: lr_B / lr_A when the request leaves it open.
        trains_A: False where A stays at its initial value.
        alpha_from_rule: α comes from ``alpha_rule`` instead of the α list.
        layer: ``"module:Class"`` of its ``GroupLayer``, imported when a model is adapted.
        no_lora_space: Why its Hessian has no LoRA coordinates; empty where it has.
        takes_adapters: Whether runs can start from a given adapter.
        peft_options: What a ``LoraConfig`` says of this method alone, such as ``use_dora``.
        peft_start: What a ``LoraConfig`` for a new training says beside that: how its adapters start.
        peft_vectors: Exported tensors beside A and B → the end of their key in PEFT's files.
    """

    name: str
    summary: str
    rule: ScaleRule = "alpha/r"
    uses_rank: bool = True
    default_lr_ratio: float = 1.0
    trains_A: bool = True
    alpha_from_rule: bool = False
    layer: str = "lora_alpha.models.low_rank:LowRank"
    no_lora_space: str = ""
    takes_adapters: bool = True
    peft_options: Mapping[str, Any] = field(default_factory=dict)
    peft_start: Mapping[str, Any] = field(default_factory=dict)
    peft_vectors: Mapping[str, str] = field(default_factory=dict)

    def scale(self, *, rank: int | None, alpha: float | None) -> float | None:
        """The effective scale s of ``W0 + s·B·A``; None without a rank or α."""
        if not self.uses_rank or rank is None or alpha is None:
            return None
        return effective_scale(alpha, rank, rule=self.rule)

    def peft_alpha(self, scale: float, rank: int) -> float:
        """The ``lora_alpha`` from which PEFT gets ``scale``, to the last bit."""
        return shortest_alpha(scale, rank, rule=self.rule)

    def peft_config(self) -> dict[str, Any]:
        """What its ``LoraConfig`` says beside rank, α and layers."""
        rslora = {"use_rslora": True} if self.rule == "alpha/sqrt(r)" else {}
        return {**self.peft_options, **rslora}

    def describes(self, config: Mapping[str, Any]) -> bool:
        """Whether these fields of a ``LoraConfig``, as values or as logged text, mean this method."""
        wanted = self.peft_config()
        return bool(wanted) and all(_says(config.get(name), value) for name, value in wanted.items())

    def peft_factors(self, parts: Parts) -> tuple[Array, Array]:
        """A (r, in) and B (out, r) whose product, times the scale, is what the base gets added.

        Args:
            parts: One layer's tensors, as its ``GroupLayer`` exports them.
        """
        return parts["A"], parts["B"]

    def merged(self, weight_OI: Array, parts: Parts) -> Array:
        """The adapted weight (out, in) in float64, given the frozen one."""
        lora_A, lora_B = self.peft_factors(parts)
        update: Array = float(parts["scale"]) * (lora_B.astype(np.float64) @ lora_A.astype(np.float64))
        return weight_OI.astype(np.float64) + update

    def start_problem(self, tensors: Iterable[str]) -> str | None:
        """Why runs cannot start from an adapter whose layers have these tensors; None where they can."""
        if not self.takes_adapters:
            return f"{self.name} cannot start from a low-rank adapter: choose a LoRA method"
        given = extra_tensors(tensors)
        if given != set(self.peft_vectors):
            return f"{self.name} starts from {adapter_kind(self.peft_vectors)}, got {adapter_kind(given)}"
        return None


def extra_tensors(tensors: Iterable[str]) -> set[str]:
    """What an adapter has beside A, B and s."""
    return set(tensors) - FACTORS - NOTES


def adapter_kind(tensors: Iterable[str]) -> str:
    """Words for an adapter with these tensors.

    >>> adapter_kind(["A", "B", "scale", "magnitude"])
    'an adapter with magnitude'
    """
    extra = extra_tensors(tensors)
    return f"an adapter with {', '.join(sorted(extra))}" if extra else "a plain LoRA adapter"


def _says(value: Any, wanted: Any) -> bool:
    text = str(value).lower()
    return text == str(wanted).lower() or (wanted is True and text == "1")
