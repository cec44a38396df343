"""The doorbell: a Celery message that says "there may be work", and nothing else."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES

from backend.settings import Settings

TASK = "lora_alpha.work"
# Named, not imported: the service knows where the transport lives, not what is in it.
TRANSPORT_ALIASES["filebroker"] = "backend.file_broker:Transport"


def create_celery(settings: Settings) -> Celery:
    """The Celery application that producers and workers share; connects when first used."""
    app = Celery("lora_alpha", broker=settings.broker)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=queue_name(settings, "default"),
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker as long as it takes
        broker_transport_options=_transport_options(settings),
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
    )
    return app


def queue_name(settings: Settings, queue: str) -> str:
    """The broker's name of ``queue`` in this installation."""
    return f"{settings.key_prefix}.{queue}"


def ring(app: Celery, settings: Settings, queue: str = "default") -> bool:
    """Wake a worker of ``queue``. False if the broker does not answer: the reconciler rings again."""
    try:
        app.send_task(TASK, queue=queue_name(settings, queue), ignore_result=True, retry=False)
    except (OSError, OperationalError):
        return False
    return True


def _transport_options(settings: Settings) -> dict[str, object]:
    if settings.broker.startswith("filebroker"):
        return {"folder": str(settings.files.queue)}
    return {
        "global_keyprefix": f"{settings.key_prefix}:",
        "visibility_timeout": 3600,
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
    }
