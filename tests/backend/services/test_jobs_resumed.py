"""A resumed job: points after its checkpoint go, the others stay, and the curve shows no break."""

from __future__ import annotations

import numpy as np
import pytest

from backend.services import jobs
from backend.services.jobs import ClaimedJob
from backend.store.engines import Store
from backend.store.metrics import CurveWriter, read_metric
from backend.store.tables import RunRow
from tests.queued_jobs import LEASE_S, NOW, add_pack, claim


@pytest.mark.parametrize("checkpoint", [1, 100, 255, 256, 257, 511, 512, 513, 600])
def test_a_resume_keeps_the_point_at_the_checkpoint_and_drops_every_later_one(
    any_store: Store, checkpoint: int
) -> None:
    add_pack(any_store)
    job = claim(any_store)
    train(any_store, job, 0, 601, checkpoint)
    jobs.hand_back(any_store, job, now=NOW, error="killed", log_tail="")
    again = claim(any_store)
    assert (again.checkpoint, again.checkpoint_step) == (f"{checkpoint}.pt", checkpoint)
    assert curve(any_store, "train_loss") == list(range(checkpoint + 1))
    assert curve(any_store, "eval_loss") == list(range(0, checkpoint + 1, 10))
    with any_store.read() as session:
        assert session.get_one(RunRow, "pack-0").step == checkpoint
    train(any_store, again, checkpoint + 1, 700)
    assert curve(any_store, "train_loss") == list(range(700))
    assert curve(any_store, "eval_loss") == list(range(0, 700, 10))


def test_a_resume_without_a_checkpoint_begins_anew(store: Store) -> None:
    add_pack(store)
    job = claim(store)
    train(store, job, 0, 300)
    jobs.hand_back(store, job, now=NOW, error="killed", log_tail="")
    assert claim(store).checkpoint is None
    assert curve(store, "train_loss") == curve(store, "eval_loss") == []


def train(store: Store, job: ClaimedJob, first: int, stop: int, checkpoint: int | None = None) -> None:
    """Steps ``first`` … ``stop`` - 1, values like steps: train_loss each step, eval_loss each tenth."""
    with store.read() as session:
        curves = CurveWriter(session, ["pack-0", "pack-1"], token=job.attempt)
    edges = sorted({first, stop, min(stop, first + 90), *([checkpoint + 1] if checkpoint else [])})
    for start, end in zip(edges, edges[1:], strict=False):
        for metric, steps in (
            ("train_loss", np.arange(start, end)),
            ("eval_loss", np.arange(-(-start // 10) * 10, end, 10)),
        ):
            if len(steps):
                curves.add(metric, steps, np.tile(steps.astype(float), (2, 1)))
        at = (f"{checkpoint}.pt", checkpoint) if checkpoint and end == checkpoint + 1 else None
        jobs.progress(
            store,
            job,
            now=NOW,
            lease_s=LEASE_S,
            checkpoint=at,
            write=lambda session: curves.write(session, now=NOW),
        )


def curve(store: Store, metric: str) -> list[int]:
    """Steps of the stored points of both runs; fails where a value is not its step."""
    with store.read() as session:
        stored = read_metric(session, ["pack-0", "pack-1"], metric)
    found = []
    for run_id in ("pack-0", "pack-1"):
        steps = stored[run_id].steps.tolist() if run_id in stored else []
        assert run_id not in stored or stored[run_id].values.tolist() == steps
        found.append(steps)
    assert found[0] == found[1]
    return found[0]
