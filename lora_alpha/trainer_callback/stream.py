"""Sends the points of one outside run to the ingest API, and never makes its training wait.

``add`` puts values into a bounded queue and returns. A thread gathers them, sends a batch a second and keeps
what could not be sent: in memory and in a file beside the training's output, both bounded, so that neither a
restart of the service nor the end of this process loses points. The run is known by its key and a point by
its metric and step, so that whatever is sent twice does no harm. What the bounds cut off is counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_alpha.errors import Conflict, InvalidSpec, LoraAlphaError, NotFound
from lora_alpha.importers.spool import read_spool
from lora_alpha.wire.client import Client
from lora_alpha.wire.jobs import IngestRun

LOG = logging.getLogger("lora_alpha.callback")
MAX_SERIES = 200  # in one request, as ``IngestPoints`` allows
BATCH_POINTS = 20_000  # about 0.5 MB of JSON
FIRST_WAIT_S = 0.5  # after the first failure; doubles with each further one

Body = dict[str, Any]  # of POST /ingest/runs/{id}/points


class RunStream:
    """One run on its way to the service.

    Any thread may call ``add``; one calls ``close``, once. All the rest is the sender thread's.

    Args:
        client: Of the service.
        run: How the run is registered; needs a ``key``.
        spool: File for what could not be sent; gone again once everything is.
        queue_size: Most ``add`` calls that may wait to be gathered.
        max_points: Most points that may wait to be sent.
        interval_s: Seconds between two batches.
        max_wait_s: Longest wait between two tries while the service is away.
        closes_client: Close ``client`` when all is done.
    """

    def __init__(
        self,
        client: Client,
        run: IngestRun,
        *,
        spool: Path,
        queue_size: int = 10_000,
        max_points: int = 1_000_000,
        interval_s: float = 1.0,
        max_wait_s: float = 30.0,
        closes_client: bool = False,
    ) -> None:
        assert run.key is not None, "without a key a repeated call would make a second run"
        self.run_id: str | None = None
        self.num_dropped = 0
        self.client = client
        self._run = run
        self._spool = spool
        self._queue: queue.Queue[tuple[int, Mapping[str, Any]] | None] = queue.Queue(queue_size)
        self._max_points = max_points
        self._interval_s = interval_s
        self._max_wait_s = max_wait_s
        self._closes_client = closes_client
        self._outbox: deque[Body] = deque(read_spool(spool)[1] if spool.exists() else ())
        self._num_points = sum(map(_count, self._outbox))
        self._num_spooled = len(self._outbox)
        self._wait_s = 0.0
        self._next_try = 0.0
        self._closing = threading.Event()
        self._outcome: dict[str, Any] = {}
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._work, name="lora-alpha-stream", daemon=True)
        self._thread.start()

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Queue values of metrics at ``step``; returns at once, and counts them as dropped if it is full.

        Values may be tensors: the sender thread reads them, so that a GPU need not be waited for here.
        """
        try:
            self._queue.put_nowait((step, values))
        except queue.Full:
            self.num_dropped += len(values)

    def close(self, outcome: Mapping[str, Any] | None = None, *, timeout_s: float = 10.0) -> bool:
        """Send what waits, then ``outcome`` (``state``, ``summary``, …); returns whether all of it arrived.

        What has not arrived after ``timeout_s`` is in the spool file.
        """
        self._outcome = dict(outcome or {})
        self._deadline = time.monotonic() + timeout_s
        self._next_try = 0.0
        self._closing.set()
        self._wake()
        self._thread.join(timeout_s + 1.0)
        if self.num_dropped:
            LOG.warning("%d points were dropped: the queue or the spool was full", self.num_dropped)
        arrived = not self._thread.is_alive() and not self._outbox
        if not arrived:
            LOG.warning(
                "the service at %s could not be reached: what is missing lies in %s; "
                "send it with 'lora-alpha ingest %s'",
                self.client.base_url,
                self._spool,
                self._spool,
            )
        return arrived

    def _wake(self) -> None:
        with contextlib.suppress(queue.Full):  # then there is work enough to wake it
            self._queue.put_nowait(None)

    def _work(self) -> None:
        finished = False
        while True:
            self._gather()
            if self._closing.is_set() and not finished and self._queue.empty():
                finished = True
                self._put_outcome()
            self._try_to_send()
            if finished and (not self._outbox or time.monotonic() >= self._deadline):
                break
        if self._outbox:
            self._keep()
        if self._closes_client:
            self.client.close()

    def _gather(self) -> None:
        """Move what is queued into one body of the outbox; waits for ``interval_s`` unless it is closing."""
        columns: dict[str, tuple[list[int], list[float | None]]] = {}
        num_points = 0
        until = time.monotonic() + self._interval_s
        while True:
            left = 0.05 if self._closing.is_set() else until - time.monotonic()
            try:
                item = self._queue.get(timeout=max(left, 0.0)) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                for metric, value in item[1].items():
                    steps, values = columns.setdefault(metric, ([], []))
                    steps.append(item[0])
                    values.append(_number(value))
                num_points += len(item[1])
            if num_points >= BATCH_POINTS or (not self._closing.is_set() and time.monotonic() >= until):
                break
        series = [{"metric": name, "steps": steps, "values": vs} for name, (steps, vs) in columns.items()]
        for start in range(0, len(series), MAX_SERIES):
            self._put({"series": series[start : start + MAX_SERIES]})

    def _put(self, body: Body) -> None:
        if self._num_points + _count(body) > self._max_points:
            self.num_dropped += _count(body)
            return
        self._outbox.append(body)
        self._num_points += _count(body)

    def _put_outcome(self) -> None:
        summary = {**self._outcome.get("summary", {})}
        if self.num_dropped:
            summary["dropped_points"] = float(self.num_dropped)
        body = {**self._outcome, **({"summary": summary} if summary else {})}
        if body:
            self._outbox.append(body)

    def _try_to_send(self) -> None:
        if not self._outbox or time.monotonic() < self._next_try:
            return
        try:
            while self._outbox:
                self._send_first()
        except (InvalidSpec, Conflict) as error:
            refused = self._outbox.popleft()
            self._num_points -= _count(refused)
            self._num_spooled = max(0, self._num_spooled - 1)
            self.num_dropped += _count(refused)
            LOG.warning("the service refuses points of this run: %s", error)
            if not self._outbox:
                self._spool.unlink(missing_ok=True)
        except LoraAlphaError as error:
            self._wait(error)
        else:
            if self._wait_s:
                LOG.info("the service at %s is back", self.client.base_url)
            self._wait_s, self._num_spooled = 0.0, 0
            self._spool.unlink(missing_ok=True)

    def _send_first(self) -> None:
        if self.run_id is None:
            self.run_id = self.client.ingest_run(self._run).id
        try:
            self.client.ingest_points(self.run_id, self._outbox[0])
        except NotFound:
            self.run_id = None  # deleted there: the next try registers it again
            raise
        self._num_points -= _count(self._outbox.popleft())
        self._num_spooled = max(0, self._num_spooled - 1)

    def _wait(self, error: LoraAlphaError) -> None:
        if not self._wait_s:
            LOG.warning("points are kept for later: %s", error)
        self._wait_s = min(max(FIRST_WAIT_S, 2 * self._wait_s), self._max_wait_s)
        # At the end there is no time for long waits.
        self._next_try = time.monotonic() + min(self._wait_s, 0.5 if self._closing.is_set() else math.inf)
        self._keep()

    def _keep(self) -> None:
        try:
            self._write_spool()
        except OSError as full:
            LOG.warning("the spool file cannot be written (%s): points are kept in memory only", full)

    def _write_spool(self) -> None:
        """Append what the file lacks; points that were sent meanwhile stay in it and do no harm."""
        fresh = not self._spool.exists()
        new = list(self._outbox)[0 if fresh else self._num_spooled :]
        self._spool.parent.mkdir(parents=True, exist_ok=True)
        with self._spool.open("a") as file:
            if fresh:
                file.write(json.dumps({"run": self._run.model_dump(mode="json", exclude_unset=True)}) + "\n")
            file.writelines(json.dumps(body) + "\n" for body in new)
        self._num_spooled = len(self._outbox)


def _count(body: Body) -> int:
    return sum(len(series["steps"]) for series in body.get("series", ()))


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
