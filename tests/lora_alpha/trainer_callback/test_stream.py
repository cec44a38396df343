from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from lora_alpha.errors import InvalidSpec
from lora_alpha.importers.registry import import_runs
from lora_alpha.importers.spool import read_spool, send_spool
from lora_alpha.trainer_callback.stream import RunStream
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import IngestRun

RUN = IngestRun(key="k", sweep_name="outside", rank=4, alpha=8, lr=1e-3, steps=1000)
STEPS = 400


def stream(client: Client, folder: Path, **options: Any) -> RunStream:
    return RunStream(client, RUN, spool=folder / "spool.jsonl", **{"interval_s": 0.02, **options})


def nobody(tmp_path: Path) -> Client:
    """A client whose every request fails to connect."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    return Client("http://127.0.0.1:1", transport=httpx.MockTransport(refuse))


def test_what_is_added_arrives_in_full(loopback: Any, tmp_path: Path) -> None:
    sender = stream(loopback.client(), tmp_path)
    for step in range(STEPS):
        sender.add(step, {"train_loss": step / 8, "drift_ratio": torch.tensor(step / 16)})
    sender.add(STEPS, {"train_loss": float("nan")})
    assert sender.close({"state": "finished", "summary": {"train_runtime": 2.0}})
    (run,) = loopback.runs()
    assert run.state == "finished"
    assert run.diverged, "its last loss is no number"
    assert run.summary["train_runtime"] == 2.0
    assert loopback.curve(run.id, "train_loss")[0] == list(range(STEPS + 1))
    assert loopback.curve(run.id, "drift_ratio")[1] == [step / 16 for step in range(STEPS)]
    assert not (tmp_path / "spool.jsonl").exists()


def test_a_restart_of_the_service_loses_nothing(loopback: Any, tmp_path: Path) -> None:
    sender = stream(loopback.client(), tmp_path, max_wait_s=0.2)
    for step in range(STEPS):
        sender.add(step, {"train_loss": step / 8})
        if step == STEPS // 3:
            time.sleep(0.1)
            loopback.stop()
        if step == 2 * STEPS // 3:
            deadline = time.monotonic() + 5
            while not (tmp_path / "spool.jsonl").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert (tmp_path / "spool.jsonl").exists(), "what cannot be sent is on disk"
            loopback.start()
    assert sender.close({"state": "finished"})
    (run,) = loopback.runs()
    assert loopback.curve(run.id, "train_loss") == (list(range(STEPS)), [s / 8 for s in range(STEPS)])
    assert run.final_loss == (STEPS - 1) / 8
    assert sender.num_dropped == 0
    assert not (tmp_path / "spool.jsonl").exists()


def test_what_never_arrived_can_be_sent_later(loopback: Any, tmp_path: Path) -> None:
    sender = stream(nobody(tmp_path), tmp_path)
    for step in range(STEPS):
        sender.add(step, {"train_loss": step / 8})
    assert not sender.close({"state": "finished"}, timeout_s=0.5)
    spool = tmp_path / "spool.jsonl"
    spool.write_text(spool.read_text() + '{"series": [{"metr')  # a crash in the middle of a line
    with loopback.client() as client:
        (line,) = import_runs(client, spool)
    assert line.endswith(f"{STEPS} new points")
    (run,) = loopback.runs()
    assert (run.state, run.final_loss) == ("finished", (STEPS - 1) / 8)
    assert loopback.curve(run.id, "train_loss")[0] == list(range(STEPS))
    assert not spool.exists()


def test_a_training_that_goes_on_sends_what_its_first_part_kept(loopback: Any, tmp_path: Path) -> None:
    first = stream(nobody(tmp_path), tmp_path)
    first.add(0, {"train_loss": 2.0})
    first.close(timeout_s=0.3)
    second = stream(loopback.client(), tmp_path)
    second.add(1, {"train_loss": 1.0})
    assert second.close()
    (run,) = loopback.runs()
    assert loopback.curve(run.id, "train_loss") == ([0, 1], [2.0, 1.0])


def test_a_full_queue_drops_and_counts_and_never_blocks(loopback: Any, tmp_path: Path) -> None:
    gate, reached = threading.Event(), threading.Event()

    class Slow(Client):
        def ingest_run(self, request: Any) -> Any:
            reached.set()
            gate.wait()
            return super().ingest_run(request)

    loopback.clients.append(Slow(loopback.address))
    sender = stream(loopback.clients[-1], tmp_path, queue_size=5)
    sender.add(0, {"train_loss": 1.0})
    assert reached.wait(10)  # now the thread waits at the gate with what it has gathered
    begin = time.perf_counter()
    for step in range(1, 101):
        sender.add(step, {"train_loss": 1.0, "grad_norm": 1.0})
    assert time.perf_counter() - begin < 1
    assert sender.num_dropped == 2 * 95
    gate.set()
    assert sender.close({"state": "finished"})
    (run,) = loopback.runs()
    assert run.summary["dropped_points"] == 190.0
    assert loopback.curve(run.id, "grad_norm")[0] == [1, 2, 3, 4, 5]


def test_the_spool_is_bounded(tmp_path: Path) -> None:
    sender = stream(nobody(tmp_path), tmp_path, max_points=100)
    for step in range(STEPS):
        sender.add(step, {"train_loss": 1.0})
        if step % 20 == 0:
            time.sleep(0.03)
    assert not sender.close({"state": "finished"}, timeout_s=0.5)
    _, bodies = read_spool(tmp_path / "spool.jsonl")
    kept = sum(len(series["steps"]) for body in bodies for series in body.get("series", ()))
    assert kept <= 100
    assert kept + sender.num_dropped == STEPS
    assert bodies[-1]["summary"]["dropped_points"] == sender.num_dropped
    assert bodies[-1]["state"] == "finished"


def test_points_that_are_refused_are_counted_and_the_rest_goes_on(loopback: Any, tmp_path: Path) -> None:
    sender = stream(loopback.client(), tmp_path)
    sender.add(0, {"no spaces allowed": 1.0})
    deadline = time.monotonic() + 10
    while not sender.num_dropped and time.monotonic() < deadline:
        time.sleep(0.02)
    sender.add(1, {"train_loss": 1.0})
    assert sender.close({"state": "finished"})
    assert sender.num_dropped == 1
    (run,) = loopback.runs()
    assert run.final_loss == 1.0


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text(json.dumps({"question": "?"}) + "\n")
    with pytest.raises(InvalidSpec, match="holds no points"):
        send_spool(nobody(tmp_path), tmp_path / "other.jsonl")
