"""The login page of an installation with a token: the token goes into a cookie, and that is all."""

from __future__ import annotations

import hmac
from html import escape
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.security import COOKIE
from backend.settings import Settings

COOKIE_AGE_S = 30 * 86_400
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LoRA-α: log in</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ display: grid; place-content: center; min-height: 100vh; margin: 0; }}
form {{ display: grid; gap: .75rem; width: min(22rem, 90vw); }}
input, button {{ font: inherit; padding: .5rem .75rem; }}
.error {{ color: #c92a2a; margin: 0; }}
</style>
</head>
<body>
<form method="post" action="/login">
<h1>LoRA-α</h1>
<label for="token">Access token of this installation</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="next" value="{next}">
{error}
<button type="submit">Log in</button>
</form>
</body>
</html>
"""


def add_login(root: FastAPI, settings: Settings) -> None:
    """Serve ``/login`` on ``root``; add it before anything that catches all paths."""

    @root.get("/login", include_in_schema=False)
    def show(next: str = "/") -> HTMLResponse:
        return _page(next)

    @root.post("/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        target = fields.get("next", ["/"])[0]
        if not token_matches(fields.get("token", [""])[0], settings):
            return _page(
                target, error="That is not this installation's token.", status=HTTPStatus.UNAUTHORIZED
            )
        response = RedirectResponse(local_path(target), HTTPStatus.SEE_OTHER)
        set_token_cookie(response, settings, secure=request.url.scheme == "https")
        return response


def token_matches(given: str, settings: Settings) -> bool:
    """Whether ``given`` is the token, in constant time; never true where there is no token."""
    return settings.token is not None and hmac.compare_digest(given.encode(), settings.token.encode())


def set_token_cookie(response: Response, settings: Settings, *, secure: bool) -> None:
    """Put the token into a cookie that no script reads and no other site's request carries."""
    assert settings.token is not None
    response.set_cookie(
        COOKIE, settings.token, max_age=COOKIE_AGE_S, httponly=True, samesite="strict", secure=secure
    )


def local_path(target: str) -> str:
    """``target`` if it is a path on this server, else the front page: no redirect leads elsewhere.

    >>> local_path("/sweep/1?tab=law"), local_path("//evil.example"), local_path("https://evil.example")
    ('/sweep/1?tab=law', '/', '/')
    """
    leads_away = not target.startswith("/") or target[1:2] in {"/", "\\"}
    return "/" if leads_away or any(ord(character) < 32 for character in target) else target


def _page(target: str, *, error: str = "", status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    shown = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
    return HTMLResponse(PAGE.format(next=escape(local_path(target), quote=True), error=shown), status)
