"""Starting processes: the whole application on one machine, or one of its roles."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import typer
import uvicorn
from fastapi import FastAPI

from backend.app import create_app
from backend.security import check_bind
from backend.settings import Settings, get_settings
from backend.store.engines import open_store
from lora_alpha.errors import LoraAlphaError
from lora_alpha.planning.fleet import gpu_memory_bytes
from workers.processes import die_with_supervisor
from workers.supervisor import ChildSpec, Supervisor

START_TIMEOUT_S = 60.0
Job = Callable[[str], int]


def serve(
    *,
    host: str,
    port: int,
    num_workers: int | None,
    job: Job | None = None,
    exit_after_job: bool = False,
) -> int:
    """Run API, dashboard and workers under a supervisor until Ctrl-C, or until ``job`` is done.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        num_workers: Worker processes; one per GPU or CPU core unless given.
        job: Called with the service's address once it answers.
        exit_after_job: End with the job's status instead of serving on.

    Returns:
        The exit status.
    """
    settings = get_settings()
    check_bind(host, settings)
    port = port or _free_port(host)
    _check_port(host, port)
    devices = _devices(num_workers)
    os.environ["LORA_ALPHA_WORKERS"] = str(len(devices))
    sharing = max(Counter(devices).values())
    os.environ["LORA_ALPHA_GPU_BYTES"] = str(min(map(gpu_memory_bytes, set(devices))) // sharing)
    settings.files.prepare()
    open_store(settings.database).migrate()
    supervisor = Supervisor(_children(host, port, devices), log_folder=settings.files.logs)
    stop = threading.Event()
    _on_signal(stop)
    supervisor.start()
    address = f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{port}"
    try:
        if not _wait_until_up(address, stop):
            return 130 if stop.is_set() else 1
        typer.echo(f"lora_alpha is at {address}  ({len(devices)} workers, files in {settings.home})")
        status = _run_job(job, address, stop) if job is not None else 0
        if not exit_after_job and not stop.is_set():
            typer.echo("Serving. Ctrl-C stops everything.")
            stop.wait()
        return status if exit_after_job else 0
    finally:
        supervisor.close()


def serve_api(*, host: str, port: int, with_dashboard: bool) -> None:
    """Serve the API in this process, with the dashboard on the same port if asked for."""
    settings = get_settings()
    check_bind(host, settings)
    app = create_app(settings)
    if with_dashboard:
        from dashboard.app import mount_dashboard

        mount_dashboard(app, api=f"http://127.0.0.1:{port}", token=settings.token)
    _run(app, host=host, port=port)


def serve_dashboard(*, api: str, host: str, port: int) -> None:
    """Serve the dashboard in this process for an API elsewhere."""
    from backend.security import Guard
    from dashboard.app import mount_dashboard

    settings = get_settings()
    check_bind(host, settings)
    root = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    mount_dashboard(root, api=api, token=settings.token)
    root.add_middleware(Guard, settings=settings)
    _run(root, host=host, port=port)


def serve_worker(*, device: str, queues: tuple[str, ...]) -> int:
    """Run one worker in this process."""
    from workers.celery_app import run_worker

    return run_worker(get_settings(), device=device, queues=queues)


def upgrade_database() -> str:
    """Migrate the database; returns a sentence that says which."""
    settings: Settings = get_settings()
    settings.files.prepare()
    store = open_store(settings.database)
    store.migrate()
    return f"the {store.dialect} database has the newest schema"


def _children(host: str, port: int, devices: list[str]) -> list[ChildSpec]:
    program = [sys.executable, "-m", "command_line"]
    web = ChildSpec("web", [*program, "api", "--dashboard", "--host", host, "--port", str(port)])
    # One torch thread per worker: more would fight over the cores.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = [
        ChildSpec(f"worker-{index}", [*program, "worker", "--device", device], threads)
        for index, device in enumerate(devices)
    ]
    return [web, *workers]


def _devices(num_workers: int | None) -> list[str]:
    # nvidia's driver lists its devices here; asking torch would cost this process seconds of import.
    gpus = list(Path("/dev").glob("nvidia[0-9]*"))
    if gpus:
        return [f"cuda:{index % len(gpus)}" for index in range(num_workers or len(gpus))]
    return ["cpu"] * (num_workers or len(os.sched_getaffinity(0)))


def _run(app: FastAPI, *, host: str, port: int) -> None:
    die_with_supervisor()
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=3)


def _run_job(job: Job, address: str, stop: threading.Event) -> int:
    """Run the job in a thread, so that Ctrl-C ends the wait for it at once."""
    outcome: list[int] = []

    def run() -> None:
        try:
            outcome.append(job(address))
        except LoraAlphaError as error:
            if not stop.is_set():
                typer.echo(f"the demo ended early: {error}", err=True)
            outcome.append(1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() and not stop.is_set():
        thread.join(0.2)
    return outcome[0] if outcome else 130


def _wait_until_up(address: str, stop: threading.Event) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and not stop.is_set():
        try:
            with urllib.request.urlopen(f"{address}/api/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            stop.wait(0.2)
    if not stop.is_set():
        typer.echo(
            f"the service did not answer at {address}: see logs/web.log under LORA_ALPHA_HOME", err=True
        )
    return False


def _on_signal(stop: threading.Event) -> None:
    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _check_port(host: str, port: int) -> None:
    """Say at once that the port is taken, instead of restarting a server that cannot start."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LoraAlphaError(
                f"cannot listen on {host}:{port} ({error.strerror}): take another with --port, or --port 0"
            ) from None
