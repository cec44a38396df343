"""Workload descriptions without torch: what the API lists, the form shows and the planner estimates.

The code that trains them lives in ``lora_alpha/workloads`` under the same names.
"""

from lora_alpha.catalog.builtin import BUILTIN
from lora_alpha.catalog.builtin_image import IMAGE
from lora_alpha.catalog.builtin_text import TEXT
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.catalog.huggingface import HUGGING_FACE
from lora_alpha.catalog.huggingface_encoders import ENCODERS
from lora_alpha.errors import FieldProblem, InvalidSpec

__all__ = ["WORKLOADS", "SweepDefaults", "WorkloadInfo", "workload_info"]

WORKLOADS: dict[str, WorkloadInfo] = {
    info.name: info for info in (*BUILTIN, *TEXT, *IMAGE, *HUGGING_FACE, *ENCODERS)
}


def workload_info(name: str) -> WorkloadInfo:
    """The description of workload ``name``.

    Raises:
        InvalidSpec: If no such workload exists; the message lists those that do.
    """
    if name not in WORKLOADS:
        known = ", ".join(sorted(WORKLOADS))
        raise InvalidSpec([FieldProblem("workload", f"got {name!r}: choose one of {known}")])
    return WORKLOADS[name]
