"""The ``.jsonl`` file of what a training run could not send: its registration first, then its points."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.wire.client import Client

Body = dict[str, Any]  # of POST /ingest/runs/{id}/points


def read_spool(path: Path) -> tuple[Body, list[Body]]:
    """The run's registration and the bodies of its points; a line cut off by a crash is left out.

    Raises:
        InvalidSpec: If the file was not written by a stream.
    """
    lines = list(_lines(path))
    if not lines or "run" not in lines[0]:
        raise InvalidSpec([FieldProblem("source", f"{path} holds no points that a training run kept")])
    return lines[0]["run"], lines[1:]


def send_spool(client: Client, path: Path) -> str:
    """Send what a run kept, delete the file, and say how many points were new."""
    request, bodies = read_spool(path)
    run = client.ingest_run(request)
    added = sum(client.ingest_points(run.id, body).num_added for body in bodies)
    path.unlink()
    return f"{run.id}  {run.name}: {added} new points"


def _lines(path: Path) -> Iterator[Body]:
    with path.open() as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return
