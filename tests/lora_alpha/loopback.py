"""A real service on loopback that can be stopped and started again."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import uvicorn

from backend.app import create_app
from backend.settings import Settings
from lora_alpha.wire.client import Client
from lora_alpha.wire.sweeps import Run


class Loopback:
    """The service in a thread; it keeps its port and its database over a restart."""

    def __init__(self, home: Path) -> None:
        self.clients: list[Client] = []
        self.settings = Settings(home=home, token=None, workers=1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            create_app(self.settings), host="127.0.0.1", port=self.port, log_level="error", ws="none"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def client(self) -> Client:
        """Closed when the service goes."""
        self.clients.append(Client(self.address, timeout_s=5.0))
        return self.clients[-1]

    def runs(self) -> list[Run]:
        with self.client() as client:
            return client.runs().items

    def curve(self, run_id: str, metric: str) -> tuple[list[int], list[float]]:
        with self.client() as client:
            (curve,) = client.curves(run=run_id, metric=metric, points=10_000).curves
        return [int(step) for step in curve.step], list(curve.value)
