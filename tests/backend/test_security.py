from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from backend.app import create_app
from backend.security import Guard, check_bind, is_loopback
from backend.settings import Settings
from lora_alpha.errors import InvalidSpec

TOKEN = "a-long-random-string"
PUBLIC = "http://lab.example:8050"


@pytest.fixture
def guarded(settings: Settings) -> Iterator[Any]:
    app = create_app(settings.model_copy(update={"token": TOKEN}))
    with TestClient(app, base_url=PUBLIC, follow_redirects=False) as http:
        yield http


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8050"},
        {"Host": "localhost:8050"},
        {"Host": "localhost:8050", "Origin": "http://localhost:8050"},
        {"Host": "[::1]:8050"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_ones_own_requests_pass(headers: dict[str, str], http: Any) -> None:
    assert http.get("/api/workers", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8050"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "null"},
        {"Host": "localhost:8050", "Origin": "http://127.0.0.1:8050"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_requests_from_elsewhere_are_refused(headers: dict[str, str], http: Any) -> None:
    answer = http.get("/api/workers", headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"


def test_another_sites_form_cannot_post(http: Any) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = http.post("/api/sweeps", json={"workload": "mlp"}, headers=headers)
    assert answer.status_code == 403
    assert http.get("/api/sweeps").json()["items"] == []


def test_the_guard_covers_whatever_is_mounted_later(settings: Settings) -> None:
    root = create_app(settings)

    @root.get("/page")
    def page() -> str:
        return "secret"

    with TestClient(root, base_url="http://127.0.0.1:8050") as http:
        assert http.get("/page").status_code == 200
        assert http.get("/page", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}])
def test_websockets_are_guarded_too(headers: dict[str, str], settings: Settings) -> None:
    root = FastAPI()

    @root.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    root.add_middleware(Guard, settings=settings)  # type: ignore[arg-type]
    with TestClient(root, base_url="http://127.0.0.1:8050") as http:
        with http.websocket_connect("/ws", headers={"Host": "127.0.0.1:8050"}) as socket:
            assert socket.receive_text() == "hello"
        with pytest.raises(WebSocketDisconnect), http.websocket_connect("/ws", headers=headers):
            pass


def test_with_a_token_every_request_needs_it(guarded: Any) -> None:
    answer = guarded.get("/api/sweeps")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer x", f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN}x"):
        assert guarded.get("/api/sweeps", headers={"Authorization": wrong}).status_code == 401
    assert guarded.get("/api/sweeps", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_health_answers_a_watchdog_without_the_token(guarded: Any) -> None:
    assert guarded.get("/api/health").status_code == 200
    assert guarded.get("/api/openapi.json").status_code == 401


def test_logging_in_sets_a_cookie_that_opens_the_api(guarded: Any) -> None:
    assert guarded.post("/api/login", json={"token": "wrong"}).status_code == 401
    assert guarded.get("/api/sweeps").status_code == 401
    answer = guarded.post("/api/login", json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get("/api/sweeps").status_code == 200


def test_pages_lead_to_the_login_form_and_back(guarded: Any) -> None:
    page = guarded.get("/sweep/1?tab=law", headers={"Accept": "text/html"})
    assert page.status_code == 303
    assert page.headers["location"] == "/login?next=/sweep/1%3Ftab%3Dlaw"
    form = guarded.get(page.headers["location"])
    assert 'value="/sweep/1?tab=law"' in form.text
    wrong = guarded.post("/login", data={"token": "x", "next": "/sweep/1?tab=law"})
    assert wrong.status_code == 401
    assert "not this installation" in wrong.text
    right = guarded.post("/login", data={"token": TOKEN, "next": "/sweep/1?tab=law"})
    assert right.status_code == 303
    assert right.headers["location"] == "/sweep/1?tab=law"
    assert guarded.get("/api/sweeps").status_code == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x"]
)
def test_the_login_form_leads_nowhere_else(target: str, guarded: Any) -> None:
    answer = guarded.post("/login", data={"token": TOKEN, "next": target})
    assert answer.headers["location"] == "/"
    assert "evil" not in guarded.get("/login", params={"next": target}).text


def test_the_login_form_does_not_echo_markup(guarded: Any) -> None:
    assert "<script>" not in guarded.get("/login", params={"next": '/"><script>alert(1)</script>'}).text


def test_the_cookie_is_secure_over_https(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"token": TOKEN}))
    with TestClient(app, base_url="https://lab.example") as http:
        cookie = http.post("/api/login", json={"token": TOKEN}).headers["set-cookie"].lower()
    assert "secure" in cookie


def test_a_foreign_origin_is_refused_even_with_the_token(guarded: Any) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}
    assert guarded.get("/api/sweeps", headers=headers).status_code == 403


def test_hosts_can_be_allowed(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": "box.lan, other.lan"}))
    with TestClient(app, base_url="http://box.lan:8050") as http:
        assert http.get("/api/workers").status_code == 200


def test_a_public_address_needs_a_token(settings: Settings) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert is_loopback(host)
        check_bind(host, settings)
    for host in ("0.0.0.0", "::", "10.0.0.5", "lab.example"):
        with pytest.raises(InvalidSpec, match="LORA_ALPHA_TOKEN"):
            check_bind(host, settings)
        check_bind(host, settings.model_copy(update={"token": TOKEN}))
