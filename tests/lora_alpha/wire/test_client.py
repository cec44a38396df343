from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from lora_alpha.errors import Conflict, InvalidSpec, LoraAlphaError, NotFound, ServiceUnreachable
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration
from lora_alpha.wire.client import Client
from lora_alpha.wire.queries import CSV_KINDS

ADDRESS = "http://lab.example:8050"
PAGE: dict[str, Any] = {"items": [], "next": None}
SWEEP: dict[str, Any] = {
    "id": "s1",
    "name": "mlp",
    "state": "queued",
    "workload": "mlp",
    "created_at": "2026-01-01T00:00:00Z",
    "counts": {"queued": 1, "total": 1},
    "progress": 0.0,
    "spec": {},
}
Handler = Callable[[httpx.Request], httpx.Response]


class Recorder:
    """Answers every request with the same response and remembers it."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]


def answering(answer: httpx.Response, **options: Any) -> tuple[Client, Recorder]:
    recorder = Recorder(answer)
    return Client(ADDRESS, transport=httpx.MockTransport(recorder), **options), recorder


def problem(status: int, detail: str = "", errors: list[dict[str, str]] | None = None) -> httpx.Response:
    body = {"title": "title", "status": status, "detail": detail, "errors": errors or []}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


def test_a_request_goes_out_as_written_and_no_further() -> None:
    client, recorder = answering(httpx.Response(201, json=SWEEP), token="secret")
    cell = Configuration(method="lora", rank=4, alpha=8, lr=1e-3)
    sweep = client.create_sweep(SweepRequest(workload="mlp", ranks=[4], cells=[cell]), idempotency_key="k")
    assert sweep.id == "s1"
    assert str(recorder.last.url) == f"{ADDRESS}/api/sweeps"
    assert recorder.last.headers["idempotency-key"] == "k"
    assert recorder.last.headers["authorization"] == "Bearer secret"
    assert json.loads(recorder.last.content) == {
        "workload": "mlp",
        "ranks": [4],
        "cells": [{"method": "lora", "rank": 4, "alpha": 8.0, "lr": 0.001}],
    }


def test_without_a_token_none_is_sent() -> None:
    client, recorder = answering(httpx.Response(200, json=PAGE))
    client.workers()
    assert "authorization" not in recorder.last.headers


def test_filters_become_the_query_and_none_is_left_out() -> None:
    client, recorder = answering(httpx.Response(200, json=PAGE))
    client.runs("s1", rank=[1, 4], lr=2e-5, diverged=False, state=None, sort="-final_loss", limit=7)
    assert recorder.last.url.params.multi_items() == [
        ("sweep", "s1"),
        ("rank", "1"),
        ("rank", "4"),
        ("lr", "2e-05"),
        ("diverged", "false"),
        ("sort", "-final_loss"),
        ("limit", "7"),
    ]


def test_ids_cannot_lead_to_another_path() -> None:
    client, recorder = answering(httpx.Response(200, json=SWEEP))
    client.sweep("../workers?x=#")
    assert recorder.last.url.raw_path == b"/api/sweeps/..%2Fworkers%3Fx%3D%23"


def test_all_runs_follows_the_cursor() -> None:
    run = {
        "sweep_id": "s1",
        "name": "r",
        "state": "queued",
        "workload": "mlp",
        "method": "lora",
        "lr": 1e-3,
        "seed": 0,
        "steps": 5,
    }

    def handler(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        following = {None: "c1", "c1": "c2", "c2": None}[cursor]
        return httpx.Response(200, json={"items": [{**run, "id": str(cursor)}], "next": following})

    client = Client(ADDRESS, transport=httpx.MockTransport(handler))
    assert [found.id for found in client.all_runs("s1", rank=[4])] == ["None", "c1", "c2"]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (problem(404, "there is no sweep 'x'"), NotFound, "there is no sweep 'x'"),
        (problem(409, "it is finished"), Conflict, "it is finished"),
        (problem(422, "needs more ranks"), InvalidSpec, "needs more ranks"),
        (problem(401, "log in"), LoraAlphaError, "LORA_ALPHA_TOKEN"),
        (problem(403, "Host 'x' is not served here"), LoraAlphaError, "not served here"),
        (problem(503, "the database does not answer"), LoraAlphaError, "database does not answer"),
        (httpx.Response(502, text="<html>Bad gateway</html>"), LoraAlphaError, "502 Bad Gateway"),
        (httpx.Response(200, text="<html>Router login</html>"), LoraAlphaError, "another service"),
        (httpx.Response(200, json={"hello": "world"}), LoraAlphaError, "another version"),
    ],
)
def test_each_answer_has_its_error(answer: httpx.Response, kind: type[Exception], message: str) -> None:
    client, _ = answering(answer)
    with pytest.raises(kind, match=message):
        client.sweep("x")


def test_invalid_fields_arrive_one_by_one() -> None:
    errors = [{"field": "ranks.0", "message": "got 0"}, {"field": "steps", "message": "got -1"}]
    client, _ = answering(problem(422, "2 invalid fields", errors))
    with pytest.raises(InvalidSpec) as caught:
        client.create_sweep({"workload": "mlp"})
    assert [(item.field, item.message) for item in caught.value.problems] == [
        ("ranks.0", "got 0"),
        ("steps", "got -1"),
    ]


def test_a_service_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}/") as client, pytest.raises(ServiceUnreachable) as caught:
        client.health()
    assert f"http://127.0.0.1:{port} cannot be reached" in str(caught.value)
    assert "lora-alpha up" in str(caught.value)


def test_a_service_that_is_too_slow_is_named() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    client = Client(ADDRESS, transport=httpx.MockTransport(slow))
    with pytest.raises(ServiceUnreachable, match="did not answer in time"):
        client.health()
    with pytest.raises(ServiceUnreachable, match="did not answer in time"):
        list(client.export_csv("runs"))


@pytest.fixture
def streaming_server() -> Iterator[tuple[str, threading.Event]]:
    """Sends half a CSV, then waits for the event before it sends the rest."""
    go_on = threading.Event()

    class Half(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"run_id,step\n", b"r1,1\n"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                go_on.wait(5)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Half)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", go_on
    go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_export_arrives_block_by_block(streaming_server: tuple[str, threading.Event]) -> None:
    address, go_on = streaming_server
    with Client(address) as client:
        blocks = client.export_csv("history", ["a", "b"])
        assert next(blocks) == b"run_id,step\n"
        assert not go_on.is_set(), "the first block was there before the last was sent"
        go_on.set()
        assert b"".join(blocks) == b"r1,1\n"


@pytest.mark.parametrize("kind", CSV_KINDS)
def test_several_sweeps_share_one_export(kind: Any) -> None:
    client, recorder = answering(httpx.Response(200, content=b"a,b\n"))
    assert b"".join(client.export_csv(kind, ["s1", "s2"])) == b"a,b\n"
    assert recorder.last.url.path == f"/api/export/{kind}.csv"
    assert recorder.last.url.params["sweep"] == "s1,s2"


def test_a_refused_export_is_an_error_and_no_data() -> None:
    client, _ = answering(problem(404, "there is no sweep 'x'"))
    with pytest.raises(NotFound, match="no sweep 'x'"):
        next(client.export_csv("runs", "x"))


def test_patch_sends_only_what_changes() -> None:
    client, recorder = answering(httpx.Response(200, json=SWEEP))
    client.patch_sweep("s1", notes="")
    assert recorder.last.method == "PATCH"
    assert json.loads(recorder.last.content) == {"notes": ""}


@pytest.mark.parametrize(
    ("call", "verb", "path"),
    [
        (lambda c: c.sweep_action("s1", "pause"), "POST", "/api/sweeps/s1/pause"),
        (lambda c: c.extend_sweep("s1", {"ranks": [8]}), "POST", "/api/sweeps/s1/extend"),
        (lambda c: c.delete_sweep("s1"), "DELETE", "/api/sweeps/s1"),
        (lambda c: c.delete_view("v1"), "DELETE", "/api/views/v1"),
    ],
)
def test_verbs_have_their_paths(call: Callable[[Client], Any], verb: str, path: str) -> None:
    client, recorder = answering(httpx.Response(200, json=SWEEP))
    call(client)
    assert (recorder.last.method, recorder.last.url.path) == (verb, path)
