"""The process has one client: callbacks share it, it outlives a restart of the API, the end closes it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dashboard import app as dashboard_app
from dashboard.app import mount_dashboard
from lora_alpha.errors import LoraAlphaError
from lora_alpha.wire.client import IDLE_S, Client
from tests.dashboard.service import FakeService

PAGES = ("/", "/new", "/workers", "/laws", "/sweep/s1", "/dynamics", "/curvature")


def open_content(browser: TestClient, path: str) -> httpx.Response:
    """What a browser asks for when it opens ``path``."""
    body = {
        "output": "content.children",
        "outputs": {"id": "content", "property": "children"},
        "inputs": [{"id": "url", "property": "pathname", "value": path}],
        "state": [{"id": "url", "property": "search", "value": ""}],
        "changedPropIds": ["url.pathname"],
    }
    return browser.post("/_dash-update-component", json=body)


def test_all_pages_share_one_client_which_the_applications_end_closes(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Client] = []

    class Counted(Client):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(dashboard_app, "Client", Counted)
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        ended.append("the application's own")

    root = FastAPI(lifespan=lifespan)
    mount_dashboard(root, api="http://lab.example", transport=service)
    with TestClient(root) as browser:
        for path in PAGES:
            assert open_content(browser, path).status_code == 200, path
        assert service.counted()["/sweeps"] >= 3
        assert not made[0]._http.is_closed
    assert len(made) == 1
    assert made[0]._http.is_closed
    assert ended == ["the application's own"]


@contextmanager
def serving(port: int) -> Iterator[None]:
    """An API that says it is well, on this port, until the end of the block."""
    api = FastAPI()
    api.get("/api/workers")(lambda: {"items": []})
    server = uvicorn.Server(uvicorn.Config(api, port=port, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield
    server.should_exit = True
    thread.join(10)


def test_one_client_outlives_a_restart_of_the_api() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            with serving(port), ThreadPoolExecutor(8) as threads:
                pages = list(threads.map(lambda _: client.workers(), range(40)))
                assert [page.items for page in pages] == [[]] * 40
            with pytest.raises(LoraAlphaError, match="cannot be reached"):
                client.workers()


def test_an_idle_connection_is_given_up_before_the_service_closes_it() -> None:
    assert uvicorn.Config(FastAPI()).timeout_keep_alive > IDLE_S
    with Client() as client:
        assert client._http._transport._pool._keepalive_expiry == IDLE_S
