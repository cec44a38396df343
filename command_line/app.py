"""``lora-alpha``: every verb, with its imports left to the moment it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lora_alpha.errors import InvalidSpec, LoraAlphaError
from lora_alpha.extras import SERVER, TRAIN, require

app = typer.Typer(
    name="lora-alpha",
    help="Sweep α, η and r on your own model, see the law, read off what to use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
database = typer.Typer(help="Look after the database.", no_args_is_help=True)
app.add_typer(database, name="db")

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes; one per CPU core or GPU unless given.", min=1)
]
Api = Annotated[
    str,
    typer.Option(help="Address of a running service.", envvar="LORA_ALPHA_API"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A workload option, NAME=VALUE, as in model=models/llama; repeatable."),
]
Train = Annotated[
    list[str] | None,
    typer.Option(help="A training field, NAME=VALUE, as in optimizer=sgd; repeatable; ? lists them."),
]
Metric = Annotated[
    str | None, typer.Option(help="What α is chosen by, such as accuracy; the held-out loss unless given.")
]
Goal = Annotated[
    str | None, typer.Option(help="min or max: which way the metric is better, where its name does not say.")
]
Objective = Annotated[str | None, typer.Option(help="final or best: at the end, or the best on the way.")]
AtStep = Annotated[int | None, typer.Option(help="Read every run at this step.", min=0)]
StepsTo = Annotated[
    float | None, typer.Option(help="In place of the metric the steps until it is this good.")
]
MaxForgetting = Annotated[
    float | None, typer.Option(help="Also say the best measured α whose forgetting is at most this.")
]
DEFAULT_API = "http://127.0.0.1:8050"


@app.command()
def up(host: Host = "127.0.0.1", port: Port = 8050, workers: Workers = None) -> None:
    """Start API, dashboard and supervised workers on this machine."""
    require(*SERVER, *TRAIN, by="lora-alpha up")
    from command_line.serve import serve

    sys.exit(serve(host=host, port=port, num_workers=workers))


@app.command()
def demo(
    host: Host = "127.0.0.1",
    port: Port = 8050,
    workers: Workers = None,
    exit: Annotated[bool, typer.Option("--exit", help="End with status 0 when the sweeps are done.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the CSV files into this folder.")] = None,
) -> None:
    """Start everything, run two sweeps to a fitted law, print it, keep serving."""
    require(*SERVER, *TRAIN, by="lora-alpha demo")
    from command_line.demo import run_demo
    from command_line.serve import serve

    sys.exit(
        serve(
            host=host,
            port=port,
            num_workers=workers,
            job=lambda address: run_demo(address, out=out),
            exit_after_job=exit,
        )
    )


@app.command()
def api(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    dashboard: Annotated[bool, typer.Option(help="Serve the dashboard too.")] = False,
) -> None:
    """Serve the HTTP API alone."""
    require(*SERVER, by="lora-alpha api")
    from command_line.serve import serve_api

    serve_api(host=host, port=port, with_dashboard=dashboard)


@app.command(name="dashboard")
def dashboard_command(
    api: Api = "http://127.0.0.1:8000", host: Host = "127.0.0.1", port: Port = 8050
) -> None:
    """Serve the dashboard alone, for an API that runs elsewhere."""
    require(*SERVER, by="lora-alpha dashboard")
    from command_line.serve import serve_dashboard

    serve_dashboard(api=api, host=host, port=port)


@app.command()
def worker(
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    queue: Annotated[list[str] | None, typer.Option(help="Queues to serve; repeatable.")] = None,
) -> None:
    """Run one worker: it claims jobs from the database until it is stopped."""
    require(*SERVER, *TRAIN, by="lora-alpha worker")
    from command_line.serve import serve_worker

    sys.exit(serve_worker(device=device, queues=tuple(queue or ["default"])))


@database.command("upgrade")
def db_upgrade() -> None:
    """Bring the database to the newest schema."""
    require(*SERVER, by="lora-alpha db upgrade")
    from command_line.serve import upgrade_database

    typer.echo(upgrade_database())


@app.command()
def sweep(
    file: Annotated[
        Path | None, typer.Argument(help="YAML file: our request, or a Weights & Biases sweep.")
    ] = None,
    workload: Annotated[str | None, typer.Option(help="Workload, where no file is given.")] = None,
    preset: Annotated[str | None, typer.Option(help="Ready-made sweep to start from.")] = None,
    methods: Annotated[str | None, typer.Option(help="Methods, separated by commas.")] = None,
    ranks: Annotated[str | None, typer.Option(help="Ranks, as in 1..64 or 4,16.")] = None,
    alphas: Annotated[str | None, typer.Option(help="α values, as in 2^5..2^13.")] = None,
    lrs: Annotated[str | None, typer.Option(help="Learning rates.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps per run.", min=1)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep.")] = None,
    metric: Metric = None,
    goal: Goal = None,
    train: Train = None,
    settings: Settings = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    api: Api = DEFAULT_API,
) -> None:
    """Submit a sweep."""
    from command_line.remote import read_request, submit

    request = read_request(
        file,
        preset,
        workload=workload,
        methods=methods,
        ranks=ranks,
        alphas=alphas,
        lrs=lrs,
        seeds=seeds,
        steps=steps,
        name=name,
        metric=metric,
        goal=goal,
        train=train,
        workload_options=settings,
    )
    sys.exit(submit(api, request, plan_only=plan, wait=wait))


@app.command()
def inspect(
    workload: Annotated[str, typer.Argument(help="Workload, such as hf-sft.")],
    settings: Settings = None,
    api: Api = DEFAULT_API,
) -> None:
    """Check a workload's model and data before any run is queued; prints what was found as JSON."""
    from command_line.workload_options import inspect as run_inspection
    from command_line.workload_options import read_settings

    sys.exit(run_inspection(api, workload=workload, options=read_settings(settings or [])))


@app.command()
def probe(
    run: Annotated[str | None, typer.Option(help="Run whose weights are probed.")] = None,
    step: Annotated[int | None, typer.Option(help="Step of that run; its end unless given.", min=0)] = None,
    workload: Annotated[str | None, typer.Option(help="Workload, for a fresh point.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank, for a fresh point.", min=1)] = None,
    alpha: Annotated[float | None, typer.Option(help="α, for a fresh point.")] = None,
    kind: Annotated[str, typer.Option(help="extremes, top, density or trace.")] = "extremes",
    space: Annotated[str, typer.Option(help="lora or full.")] = "lora",
    api: Api = DEFAULT_API,
) -> None:
    """Measure the Hessian at a run's weights or at a fresh point; prints the result as CSV rows."""
    from command_line.remote import probe as run_probe

    given = {
        "run": run,
        "step": step,
        "workload": workload,
        "rank": rank,
        "alpha": alpha,
        "kind": kind,
        "space": space,
    }
    sys.exit(run_probe(api, {key: value for key, value in given.items() if value is not None}))


@app.command()
def export(
    kind: Annotated[str, typer.Argument(help="runs, history, cells, optima, law, probes or all.")],
    sweep: Annotated[str | None, typer.Option(help="Only this sweep.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File, or folder for all; standard output unless given.")
    ] = None,
    metric: Metric = None,
    goal: Goal = None,
    objective: Objective = None,
    at_step: AtStep = None,
    steps_to: StepsTo = None,
    max_forgetting: MaxForgetting = None,
    api: Api = DEFAULT_API,
) -> None:
    """Download CSV."""
    from command_line.remote import export_csv

    reading = {
        "metric": metric,
        "goal": goal,
        "objective": objective,
        "at_step": at_step,
        "steps_to": steps_to,
        "max_forgetting": max_forgetting,
    }
    export_csv(api, kind=kind, sweep=sweep, out=out, **reading)


@app.command()
def adapter(
    run: Annotated[str, typer.Argument(help="Id of a finished run.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    api: Api = DEFAULT_API,
) -> None:
    """Download a run's adapter as a folder that PeftModel.from_pretrained loads."""
    from command_line.remote import download_adapter

    download_adapter(api, run=run, out=out)


@app.command()
def recommend(
    sweep: Annotated[str, typer.Option(help="Sweep to read from.")],
    rank: Annotated[int, typer.Option(help="Rank you will train with.", min=1)],
    lr: Annotated[float | None, typer.Option(help="Learning rate you will train with.")] = None,
    metric: Metric = None,
    goal: Goal = None,
    objective: Objective = None,
    at_step: AtStep = None,
    steps_to: StepsTo = None,
    max_forgetting: MaxForgetting = None,
    api: Api = DEFAULT_API,
) -> None:
    """Say which α to use, with its interval and the runs behind it."""
    from command_line.remote import recommend as print_recommendation

    reading = {
        "metric": metric,
        "goal": goal,
        "objective": objective,
        "at_step": at_step,
        "steps_to": steps_to,
        "max_forgetting": max_forgetting,
    }
    print_recommendation(api, sweep=sweep, rank=rank, lr=lr, **reading)


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="MLflow store, W&B CSV export or our own CSV folder.")],
    metric: Metric = None,
    goal: Goal = None,
    api: Api = DEFAULT_API,
) -> None:
    """Import runs that were trained elsewhere."""
    from command_line.remote import ingest as import_runs

    import_runs(api, source, metric=metric, goal=goal)


def main() -> None:
    """Run the command line; errors of this project become one readable line and status 2."""
    try:
        app()
    except InvalidSpec as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        sys.exit(2)
    except LoraAlphaError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"{error.filename}: {error.strerror}; choose another place", err=True)
        sys.exit(2)
