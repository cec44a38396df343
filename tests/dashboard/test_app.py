from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
from dash import Dash
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dashboard.app import mount_dashboard


@pytest.fixture(scope="module")
def root() -> FastAPI:
    return FastAPI()


@pytest.fixture(scope="module")
def app(root: FastAPI) -> Dash:
    return mount_dashboard(root, api="http://127.0.0.1:1")


def test_no_callback_blocks_the_event_loop(app: Dash) -> None:
    on_server = {name: entry["callback"] for name, entry in app.callback_map.items() if "callback" in entry}
    assert len(on_server) > 10
    blocking = [
        name for name, call in on_server.items() if not inspect.iscoroutinefunction(inspect.unwrap(call))
    ]
    assert blocking == []


@pytest.fixture(scope="module")
def browser(root: FastAPI, app: Dash) -> Iterator[TestClient]:
    with TestClient(root) as client:
        yield client


@pytest.mark.parametrize("path", ["/sweep/unknown", "/laws", "/"])
def test_whichever_page_comes_first_brings_styles_and_scripts(browser: TestClient, path: str) -> None:
    html = browser.get(path).text
    assert "assets/style.css" in html
    assert "assets/theme.js" in html
    assert '<html lang="en">' in html


def test_nothing_is_loaded_from_another_host(browser: TestClient) -> None:
    html = browser.get("/").text
    assert "https://" not in html
    assert "//cdn" not in html
