"""Preparing a workload: bases and caches, made once, with progress."""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.registry import load_workload
from workers.context import JobContext


def run_pretrain(context: JobContext) -> None:
    """The job that only prepares."""
    spec = context.job.spec
    load_prepared(context, spec["workload"], spec.get("workload_options", {}))
    context.finish()


def load_prepared(context: JobContext, name: str, options: dict[str, Any]) -> Workload:
    """The workload, ready to train. One process prepares, others that need the same wait and say so."""
    workload = load_workload(name, options, roots=context.settings.roots)
    files = context.settings.files
    digest = hashlib.sha256(json.dumps([name, options], sort_keys=True).encode()).hexdigest()[:16]
    with _locked(files.cache_lock(f"{name}-{digest}"), context):
        for progress in workload.prepare(files.cache):
            if context.due():
                context.commit(message=f"{progress.label}: {progress.done} of {progress.total}")
    return workload


class _locked:  # noqa: N801 - reads as a verb
    def __init__(self, path: Path, context: JobContext) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w")
        self.context = context

    def __enter__(self) -> None:
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self.context.due():
                    self.context.commit(message="waiting for another worker to prepare the same base")
                time.sleep(0.1)
            else:
                return

    def __exit__(self, *_: object) -> None:
        self.file.close()
