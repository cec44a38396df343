"""What a runner can do, by kind of job. A handler is imported when its first job comes."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from workers.context import JobContext

Handler = Callable[[JobContext], None]

_HANDLERS = {
    "pack": "workers.handlers.pack:run_pack",
    "pretrain": "workers.handlers.pretrain:run_pretrain",
    "inspect": "workers.handlers.inspect:run_inspection",
    "probe": "workers.handlers.probe:run_probe_job",
}


def find_handler(kind: str) -> Handler:
    """The handler of jobs of ``kind``."""
    module, _, name = _HANDLERS[kind].partition(":")
    handler: Handler = getattr(importlib.import_module(module), name)
    return handler
