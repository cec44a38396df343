"""Workload descriptions without torch: what the API lists, the form shows and the planner estimates.

Each file here has a tuple of entries, and each entry names the class that trains it (most of them are in
``lora_alpha/workloads``). Another installed package adds a workload by an entry point in the group
``lora_alpha.workloads``: ``docs/your-workload.md``.
"""

from lora_alpha.catalog.builtin import BUILTIN
from lora_alpha.catalog.builtin_image import IMAGE
from lora_alpha.catalog.builtin_text import TEXT
from lora_alpha.catalog.entry import SweepDefaults, WorkloadInfo
from lora_alpha.catalog.huggingface import HUGGING_FACE
from lora_alpha.catalog.huggingface_encoders import ENCODERS
from lora_alpha.entry_points import Registry
from lora_alpha.errors import FieldProblem, InvalidSpec

__all__ = ["WORKLOADS", "SweepDefaults", "WorkloadInfo", "workload_info"]

WORKLOADS: Registry[WorkloadInfo] = Registry(
    "lora_alpha.workloads",
    WorkloadInfo,
    {info.name: info for info in (*BUILTIN, *TEXT, *IMAGE, *HUGGING_FACE, *ENCODERS)},
    name_of=lambda info: info.name,
    check=lambda info: info.options.model_json_schema(),  # what the API lists and the form shows
)


def workload_info(name: str) -> WorkloadInfo:
    """The description of workload ``name``.

    Raises:
        InvalidSpec: If no such workload exists; the message lists those that do.
    """
    if name not in WORKLOADS:
        known = ", ".join(sorted(WORKLOADS))
        raise InvalidSpec([FieldProblem("workload", f"got {name!r}: choose one of {known}")])
    return WORKLOADS[name]
