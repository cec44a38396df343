"""Who may talk to the service: a pure-ASGI guard over http and websocket alike.

On loopback without a token there is no login; but a page from elsewhere in the user's browser must not reach
it, so foreign Host and Origin headers are refused. With a token every request carries it, as bearer or as the
SameSite=Strict cookie that ``POST /api/login`` sets.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from backend.settings import Settings
from lora_alpha.errors import FieldProblem, InvalidSpec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "lora_alpha_token"
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "[::1]", "testserver"}
OPEN_PATHS = {"/api/login", "/api/health", "/login"}


def is_loopback(host: str) -> bool:
    """Whether a server bound to ``host`` is reachable from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, settings: Settings) -> None:
    """Refuse a public address without a token.

    Raises:
        InvalidSpec: If ``host`` is not loopback and ``LORA_ALPHA_TOKEN`` is not set.
    """
    if not is_loopback(host) and not settings.token:
        raise InvalidSpec(
            [
                FieldProblem(
                    "host",
                    f"got {host}: others could reach it. Set LORA_ALPHA_TOKEN to a long random string, "
                    "or listen on 127.0.0.1",
                )
            ]
        )


class Guard:
    """Lets a request through or answers it with problem details."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app = app
        self.token = settings.token
        self.hosts = LOOPBACK_NAMES | {
            host.strip().lower() for host in settings.allowed_hosts.split(",") if host
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(headers, scope)
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal[0] == HTTPStatus.UNAUTHORIZED and _is_page(headers, scope):
            await _send_to_login(send, scope)
        else:
            await _answer(send, *refusal)

    def _refusal(self, headers: dict[str, str], scope: Scope) -> tuple[HTTPStatus, str] | None:
        host = headers.get("host", "").lower()
        # A token proves who asks, whatever name the server is reached by; without one the name must be ours.
        if self.token is None and _hostname(host) not in self.hosts:
            return HTTPStatus.FORBIDDEN, f"Host {host!r} is not served here: see LORA_ALPHA_ALLOWED_HOSTS"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin.lower()).netloc != host:
            return HTTPStatus.FORBIDDEN, f"requests from {origin} are refused"
        # Following a link is harmless; everything else that another site's page starts is not.
        follows_link = headers.get("sec-fetch-mode") == "navigate" and scope.get("method") in {"GET", "HEAD"}
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and not follows_link:
            return HTTPStatus.FORBIDDEN, "requests from other sites are refused"
        if self.token is not None and scope["path"] not in OPEN_PATHS and not self._has_token(headers):
            return HTTPStatus.UNAUTHORIZED, "send the token as 'Authorization: Bearer …' or log in at /login"
        return None

    def _has_token(self, headers: dict[str, str]) -> bool:
        assert self.token is not None
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not given:
            try:
                morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            except CookieError:
                morsel = None
            given = morsel.value if morsel else ""
        return hmac.compare_digest(given.encode(), self.token.encode())


def _hostname(host: str) -> str:
    return host.rsplit(":", 1)[0] if not host.endswith("]") else host


def _is_page(headers: dict[str, str], scope: Scope) -> bool:
    wants_html = "text/html" in headers.get("accept", "")
    return wants_html and scope["method"] == "GET" and not scope["path"].startswith("/api/")


async def _send_to_login(send: Send, scope: Scope) -> None:
    query = scope.get("query_string", b"").decode("latin-1")
    target = quote(scope["path"] + (f"?{query}" if query else ""), safe="/")
    headers = [(b"location", f"/login?next={target}".encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": int(HTTPStatus.SEE_OTHER), "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, status: HTTPStatus, detail: str) -> None:
    body = json.dumps(
        {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, "errors": []}
    ).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
