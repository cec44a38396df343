"""A worker process: Celery listens for the bell, the claim loop does the work."""

from __future__ import annotations

import logging

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down
from kombu import Queue

from backend.queue import TASK, create_celery, queue_name
from backend.settings import Settings
from backend.store.engines import open_store
from workers.loop import WorkerLoop
from workers.processes import die_with_supervisor


def run_worker(settings: Settings, *, device: str = "cpu", queues: tuple[str, ...] = ("default",)) -> int:
    """Run one worker until SIGTERM or SIGINT; it drains, then returns 0."""
    die_with_supervisor()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    settings.files.prepare()
    store = open_store(settings.database)
    store.migrate()
    loop = WorkerLoop(store, settings, device=device, queues=queues)
    app = create_celery(settings)
    _register(app, loop, settings, queues)
    loop.start()
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=[queue_name(settings, queue) for queue in queues],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        hostname=f"{loop.id}@%h",
        optimization="fair",
    )
    try:
        worker.start()
    finally:
        loop.close()
        store.close()
    return 0


def _register(app: Celery, loop: WorkerLoop, settings: Settings, queues: tuple[str, ...]) -> None:
    app.conf.worker_enable_remote_control = False
    app.conf.task_queues = [Queue(queue_name(settings, queue)) for queue in queues]

    @app.task(name=TASK, acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]  # celery has no types
    def work() -> None:
        loop.work()

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def first_look(**_: object) -> None:
        # Work may have been queued while no worker was there, and its message lost since.
        work.delay()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def drain(**_: object) -> None:
        loop.drain()

    del drain, first_look
