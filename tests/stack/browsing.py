"""What the browser tests share: Chromium, and a page that tells on its own console."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_page(address: str) -> Iterator[Page]:
    """A page whose console must stay clean and whose requests must stay on this machine."""
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1400, "height": 950}, color_scheme="light")
        opened = context.new_page()
        opened.set_default_timeout(30_000)
        opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else problems.append(f"left this machine: {request.url}")
            ),
        )
        yield opened
        browser.close()
    assert problems == []
