"""Processes that never outlive whoever started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Set by a supervisor for its children: its own process id.
SUPERVISOR = "LORA_ALPHA_SUPERVISOR"


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends (Linux only).

    Args:
        parent: Process id of whoever started this process. Should it have died before this call, nobody
            would send the signal any more: this process then ends at once.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_supervisor() -> None:
    """Do not outlive the supervisor, if there is one; a process started by hand is on its own."""
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor:
        die_with_parent(int(supervisor))
