"""Workload options on the command line, and the check of what they name."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.wire.client import Client

WAITING = {"queued", "running"}


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as workload options; a value is JSON where it can be, else the text itself.

    >>> read_settings(["max_tokens=512", "packing=true", "model=models/llama", "rank_pattern=v_proj=8"])
    {'max_tokens': 512, 'packing': True, 'model': 'models/llama', 'rank_pattern': 'v_proj=8'}

    Raises:
        InvalidSpec: If one has no ``=``.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InvalidSpec([FieldProblem("set", f"got {setting!r}: write NAME=VALUE")])
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def inspect(api: str, *, workload: str, options: dict[str, Any]) -> int:
    """Check model and data on a worker and print what was found; returns 1 if something is wrong."""
    console = Console(stderr=True)
    with Client(api) as client:
        submitted = client.create_inspection(workload, options)
        with console.status("waiting for a worker") as status:
            while (current := client.inspection(submitted.id)).state in WAITING:
                status.update(current.message or "waiting for a worker")
                time.sleep(0.5)
    if current.state != "finished":
        console.print(f"[red]{current.error or current.state}[/red]")
        return 1
    found = dict(current.result or {})
    for warning in found.pop("warnings", []):
        console.print(f"[yellow]{warning}[/yellow]")
    json.dump(found, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0
