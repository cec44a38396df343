"""What each fine-tuning method means for scale, learning rates and what trains.

Torch-free: the API lists these, the engine (``lora_alpha/models/methods.py``) implements them.
A new method is one entry here and one function there.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_alpha.scaling import ScaleRule, effective_scale


@dataclass(frozen=True)
class MethodInfo:
    """One fine-tuning method.

    Attributes:
        name: Key used in requests, runs and CSV.
        summary: One sentence for the form.
        rule: How α becomes the scale s.
        uses_rank: False for full fine-tuning, which has neither rank nor α.
        default_lr_ratio: lr_B / lr_A when the request leaves it open.
        trains_A: False where A stays at its initial value.
        alpha_from_rule: α comes from ``alpha_rule`` instead of the α list.
    """

    name: str
    summary: str
    rule: ScaleRule = "alpha/r"
    uses_rank: bool = True
    default_lr_ratio: float = 1.0
    trains_A: bool = True
    alpha_from_rule: bool = False


METHODS: dict[str, MethodInfo] = {
    method.name: method
    for method in (
        MethodInfo("lora", "Low-rank adapter with s = α/r."),
        MethodInfo("rslora", "Rank-stabilised adapter with s = α/√r.", rule="alpha/sqrt(r)"),
        MethodInfo(
            "lora-alpha",
            "s = α/r with α = C·r^p taken from the rule (C = 256, p = 1/2).",
            alpha_from_rule=True,
        ),
        MethodInfo("lora+", "LoRA with a larger learning rate on B than on A.", default_lr_ratio=16.0),
        MethodInfo("lora-fa", "LoRA with A frozen: only B trains.", trains_A=False),
        MethodInfo("pissa", "A and B start from the top singular directions of W0."),
        MethodInfo("dora", "LoRA with a trained magnitude per output row."),
        MethodInfo("full", "Every adapted weight trains in full; no rank, no α.", uses_rank=False),
    )
}


def method_scale(method: str, *, rank: int | None, alpha: float | None) -> float | None:
    """The effective scale s of a configuration, or None for full fine-tuning.

    >>> method_scale("rslora", rank=16, alpha=256)
    64.0
    """
    info = METHODS[method]
    if not info.uses_rank or rank is None or alpha is None:
        return None
    return effective_scale(alpha, rank, rule=info.rule)
