"""A kombu transport on a folder: one subfolder a queue, one file a message.

kombu's own filesystem transport writes messages in place and can hand over half of one, or die on an empty
file. Here a message appears by rename and is taken by rename, both atomic; a file that is no message is
dropped, and a folder that somebody deleted is made again. Messages are doorbells, so losing one is harmless.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import virtual

# What a process that was killed in mid-publish or mid-take left behind is dropped after this many seconds.
STALE_S = 60.0


class Channel(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """Queues as folders under the transport option ``folder``."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        text = json.dumps(payload)
        with suppress(FileNotFoundError):
            _publish(self._folder(queue), name, text)
            return
        _publish(self._folder(queue), name, text)  # the folder went away in between

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        del timeout
        for path in self._messages(queue):
            taken = path.with_suffix(f".{os.getpid()}.taken")
            try:
                path.rename(taken)
                payload = _parse(taken.read_bytes())
            except OSError:
                continue  # another worker was faster
            finally:
                with suppress(OSError):
                    taken.unlink()
            if payload is not None:
                return payload
        raise Empty

    def _new_queue(self, queue: str, **_: Any) -> None:
        """Make the queue's folder and clear it of what killed processes left."""
        limit = time.time() - STALE_S
        for path in self._folder(queue).iterdir():
            if path.suffix != ".msg":
                with suppress(OSError):
                    if path.stat().st_mtime < limit:
                        path.unlink()

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return self._folder(queue).is_dir()

    def _size(self, queue: str) -> int:
        return len(self._messages(queue))

    def _purge(self, queue: str) -> int:
        messages = self._messages(queue)
        for path in messages:
            with suppress(OSError):
                path.unlink()
        return len(messages)

    def _messages(self, queue: str) -> list[Path]:
        """Waiting messages, oldest first."""
        with suppress(OSError):
            return sorted(self._folder(queue).glob("*.msg"))
        return []

    def _folder(self, queue: str) -> Path:
        folder = Path(self.connection.client.transport_options["folder"]) / queue.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Transport(virtual.Transport):  # type: ignore[misc]  # kombu has no types
    """``filebroker://``."""

    Channel = Channel
    implements = virtual.Transport.implements.extend(asynchronous=False, exchange_type=frozenset(["direct"]))
    global_state = virtual.BrokerState()
    default_port = 0
    driver_type = "filebroker"
    driver_name = "filebroker"
    polling_interval = 0.2

    def driver_version(self) -> str:
        """Version of the folder's layout."""
        return "1"

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        # Queue bindings are per process: every producer and consumer declares the queues it uses.
        self.state = self.global_state


def _publish(folder: Path, name: str, text: str) -> None:
    temporary = folder / f".{name}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / f"{name}.msg")


def _parse(content: bytes) -> dict[str, Any] | None:
    """The message in a file, or None if it is none that kombu could read."""
    try:
        payload = json.loads(content)
    except ValueError:
        return None
    if not isinstance(payload, dict) or not isinstance(payload.get("body"), str):
        return None
    properties, headers = payload.get("properties"), payload.get("headers")
    if not isinstance(properties, dict) or not isinstance(headers, dict):
        return None
    delivery = properties.get("delivery_info")
    if "delivery_tag" not in properties or not isinstance(delivery, dict):
        return None
    return payload
