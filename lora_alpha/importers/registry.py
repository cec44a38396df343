"""Importing runs from other tools: our own CSV files, an MLflow store, W&B's CSV exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.importers import mlflow_store, own_csv, wandb_csv
from lora_alpha.importers.outside_runs import OutsideRun, to_ingest, to_points
from lora_alpha.importers.spool import send_spool
from lora_alpha.metrics import Goal
from lora_alpha.wire.client import Client


def import_runs(
    client: Client, source: Path, *, metric: str | None = None, goal: Goal | None = None
) -> Iterator[str]:
    """Send every run in ``source`` to the ingest API; yields a line about each.

    Importing the same source again adds only what is new. A run that lacks a rank, an α or a learning rate is
    told about and left out; the others go in.

    Args:
        client: Of the installation that takes the runs.
        source: A folder with ``runs.csv`` (and ``history.csv``) as exported here; an MLflow ``mlruns`` folder
            or its SQLite file; a CSV file exported from a W&B table or panel; or the ``.jsonl`` file in which
            a training run kept what it could not send.
        metric: What α is to be chosen by; the held-out loss unless given, else what the runs have.
        goal: Which way it is better, where its name does not say.

    Raises:
        InvalidSpec: If ``source`` is none of these.
    """
    if source.suffix == ".jsonl" and source.is_file():
        yield send_spool(client, source)
        return
    taken = left_out = 0
    for run in read_runs(source):
        if metric is not None:
            run.metric, run.goal = metric, goal
        try:
            request = to_ingest(run, sweep_name=f"{source.resolve().name} (imported)")
        except InvalidSpec as error:
            left_out += 1
            yield f"left out {run.name}: {error}"
            continue
        created = client.ingest_run(request)
        added = sum(client.ingest_points(created.id, points).num_added for points in to_points(run))
        taken += 1
        yield f"{created.id}  {created.name}: {added} new points"
    yield f"{taken} runs imported, {left_out} left out"


def read_runs(source: Path) -> Iterator[OutsideRun]:
    """The runs in ``source``, whichever tool wrote them.

    Raises:
        InvalidSpec: If it is unreadable or of no known kind.
    """
    if not source.exists():
        raise InvalidSpec([FieldProblem("source", f"{source} does not exist")])
    if own_csv.recognises(source):
        return own_csv.read(source)
    if mlflow_store.recognises(source):
        return mlflow_store.read(source)
    if wandb_csv.recognises(source):
        return wandb_csv.read(source)
    raise InvalidSpec(
        [
            FieldProblem(
                "source",
                f"{source} is none of: a folder with runs.csv, an MLflow mlruns folder or SQLite file, "
                "a W&B CSV export",
            )
        ]
    )
