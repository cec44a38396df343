"""The workers that packs are planned for, and how much memory a device has. Torch-free: the service plans."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Share of the memory that packs may plan to fill: estimates are rough, and Python and torch need some too.
MEMORY_SHARE = 0.5
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Fleet:
    """Workers, as far as plans depend on them.

    Attributes:
        num_workers: How many.
        gpu_bytes: GPU memory of the worker that has the least; 0 where some worker computes on a CPU.
    """

    num_workers: int = 1
    gpu_bytes: int = 0

    @property
    def pack_bytes(self) -> int:
        """Memory that one pack may plan to fill.

        On CPUs that of this machine, shared by all workers; those elsewhere may have more or less.
        """
        whole = self.gpu_bytes or machine_memory_bytes() // max(1, self.num_workers)
        return int(MEMORY_SHARE * whole)


def machine_memory_bytes() -> int:
    """Memory of this machine, or of the container that this runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def gpu_memory_bytes(device: str) -> int:
    """Memory of ``cuda:N`` as the driver's tool tells it; 0 for a CPU and where nobody tells."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else []
    name = names[int(index or 0)] if int(index or 0) < len(names) else index or "0"
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", name.strip()]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return int(answer.strip()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0
