"""Verbs that talk to a running service through the client."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from command_line.progress import follow
from command_line.training_fields import read_training
from command_line.workload_options import read_settings
from lora_alpha.axes import parse_axis, parse_whole_axis
from lora_alpha.catalog.presets import preset as find_preset
from lora_alpha.catalog.resolve import problems_from
from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.importers.sweep_yaml import read_sweep_yaml
from lora_alpha.request import SweepRequest
from lora_alpha.wire.analysis import HorizonPoint
from lora_alpha.wire.client import Client
from lora_alpha.wire.queries import CSV_KINDS


def read_request(file: Path | None, preset: str | None = None, **options: Any) -> SweepRequest:
    """The request in ``file`` or of ``preset`` with command-line options laid over it.

    Raises:
        InvalidSpec: If no file, preset or workload is given, or an option cannot be read.
    """
    if file is None and preset is None and options["workload"] is None:
        raise InvalidSpec([FieldProblem("workload", "give a YAML file, --preset NAME or --workload NAME")])
    body: dict[str, Any] = {}
    if preset is not None:
        body |= find_preset(preset).request.model_dump(exclude_unset=True)
    if file is not None:
        body |= read_sweep_yaml(file).model_dump(exclude_unset=True)
    problems = []
    for name, value in options.items():
        if value is None:
            continue
        try:
            if name == "train":
                body |= read_training(value)
                continue
            if name == "workload_options":
                body[name] = {**body.get(name, {}), **read_settings(value)}
                continue
            body[name] = _parse_option(name, value)
        except ValueError as error:
            problems.append(FieldProblem(name, str(error)))
    if problems:
        raise InvalidSpec(problems)
    try:
        return SweepRequest.model_validate(body)
    except ValidationError as error:
        raise InvalidSpec(problems_from(error)) from None


def _parse_option(name: str, value: Any) -> Any:
    if name == "methods":
        return [method.strip() for method in value.split(",") if method.strip()]
    if name in {"ranks", "seeds"}:
        return parse_whole_axis(value)
    if name in {"alphas", "lrs"}:
        return parse_axis(value)
    return value


def submit(api: str, request: SweepRequest, *, plan_only: bool, wait: bool) -> int:
    """Plan or create the sweep; with ``wait`` follow it and return 1 if it did not finish."""
    console = Console()
    with connect(api) as client:
        plan = client.plan_sweep(request)
        if not plan.valid:
            raise InvalidSpec([FieldProblem(error.field, error.message) for error in plan.errors])
        seconds = f", about {plan.estimated_seconds:.0f} s" if plan.estimated_seconds else ""
        console.print(f"{plan.num_runs} runs in {plan.num_packs} packs{seconds}")
        for warning in plan.warnings:
            console.print(f"[yellow]{warning}[/yellow]")
        if plan_only:
            return 0
        sweep = client.create_sweep(request)
        console.print(f"{sweep.id}  {api}/sweep/{sweep.id}")
        if not wait:
            return 0
        (ended,) = follow(client, [sweep.id], console=console)
        return 0 if ended.state == "finished" else 1


def export_csv(api: str, *, kind: str, sweep: str | None, out: Path | None, **reading: Any) -> None:
    """Stream CSV to ``out`` (a file, or a folder for ``all``) or to standard output.

    ``reading`` says how runs are read, and may bound their forgetting: see ``Client.export_csv``.

    Raises:
        InvalidSpec: If ``kind`` is no export, or ``all`` has no folder to go to.
    """
    if kind not in {"all", *CSV_KINDS}:
        raise InvalidSpec([FieldProblem("kind", f"got {kind!r}: choose {', '.join(CSV_KINDS)} or all")])
    if kind == "all" and out is None:
        raise InvalidSpec([FieldProblem("out", "all writes several files: give a folder with --out")])
    with connect(api) as client:
        if out is None:
            for block in client.export_csv(kind, sweep, **reading):
                sys.stdout.buffer.write(block)
        elif kind == "all":
            write_csv_folder(client, out, sweeps=[sweep] if sweep else None, **reading)
        else:
            with out.open("wb") as file:
                file.writelines(client.export_csv(kind, sweep, **reading))


def write_csv_folder(client: Client, folder: Path, *, sweeps: Sequence[str] | None, **reading: Any) -> None:
    """Every export of these sweeps (all if None) as ``folder/<kind>.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in CSV_KINDS:
        with (folder / f"{kind}.csv").open("wb") as file:
            file.writelines(client.export_csv(kind, sweeps, **reading))


def download_adapter(api: str, *, run: str, out: Path) -> None:
    """Unpack the PEFT folder of ``run`` into ``out``; say where, and what its README warns of."""
    with connect(api) as client, tempfile.TemporaryFile() as file:
        file.writelines(client.run_adapter(run))
        with zipfile.ZipFile(file) as archive:
            archive.extractall(out)
    console = Console()
    console.print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    for line in (out / "README.md").read_text().splitlines():
        if line.startswith("- "):
            console.print(f"[yellow]{line.removeprefix('- ')}[/yellow]")


def connect(api: str) -> Client:
    """A client of the service at ``api``, with the token of the environment."""
    return Client(api, token=os.environ.get("LORA_ALPHA_TOKEN"))


def print_horizon(api: str, *, sweep: str, steps: str | None, lr: float | None) -> None:
    """Print p and C at each step as a table a law, with what they say.

    Raises:
        InvalidSpec: If ``steps`` cannot be read.
    """
    try:
        chosen = parse_whole_axis(steps) if steps else None
    except ValueError as error:
        raise InvalidSpec([FieldProblem("steps", str(error))]) from None
    with connect(api) as client:
        found = client.horizon(sweep, steps=chosen, fixed=lr)
    console = Console()
    for horizon in found.horizons:
        table = Table("step", "p", "95 %", "C", "95 %", "ranks", "censored", "seeds", "to come", "mind")
        for point in horizon.points:
            table.add_row(*_horizon_row(point))
        console.print(f"{horizon.method}, η = {horizon.lr:g}")
        console.print(table)
        console.print(horizon.verdict)
    for line in [*found.reasons, *found.warnings]:
        console.print(f"[yellow]{line}[/yellow]")


def _horizon_row(point: HorizonPoint) -> list[str]:
    def of(name: str, form: str) -> list[str]:
        value, low, high = (getattr(point, name + end) for end in ("", "_low", "_high"))
        between = "" if low is None else f"{low:{form}} to {high:{form}}"
        return ["–" if value is None else f"{value:{form}}", between]

    told = [*point.reasons]
    told += ["η decays: no law of shorter runs"] if point.decaying else []
    told += ["η rises"] if point.warming else []
    counts = (point.num_ranks, point.num_censored, point.num_seeds, point.num_pending)
    fitted = [*of("exponent", ".2f"), *of("coefficient", ".4g")]
    return [str(point.step), *fitted, *map(str, counts), "; ".join(told)]


def probe(api: str, body: dict[str, Any]) -> int:
    """Submit a probe, follow it, print its rows as CSV; returns 1 if it did not finish."""
    console = Console(stderr=True)
    with connect(api) as client:
        submitted = client.create_probe(body)
        with console.status("queued") as status:
            while (current := client.probe(submitted.id)).state in {"queued", "running"}:
                status.update(f"{current.state} {current.progress:.0%} {current.message}")
                time.sleep(0.5)
        if current.state != "finished":
            console.print(f"[red]{current.state}: {current.error or 'no reason was stored'}[/red]")
            return 1
        for name, value in (current.result or {}).items():
            sys.stdout.write(f"{name},{value}\n")
    return 0


def ingest(api: str, source: Path, *, metric: str | None, goal: Any) -> None:
    """Import the runs in ``source`` through the ingest API."""
    from lora_alpha.importers.registry import import_runs

    with connect(api) as client:
        console = Console()
        for line in import_runs(client, source, metric=metric, goal=goal):
            console.print(line)
