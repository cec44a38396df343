"""What a runner does with a pack that does not fit into its device's memory."""

from __future__ import annotations

import io
import time

import pytest
import torch
from sqlalchemy import select

from backend.services import jobs, sweeps
from backend.settings import Settings
from backend.store.tables import JobRow, RunRow
from lora_alpha.request import SweepRequest
from workers import runner as module
from workers.handlers.pack import run_pack
from workers.runner import Runner


@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "get_settings", lambda: Settings(home=tmp_path, workers=1))
    made = Runner(io.StringIO(), device="cpu")
    made.store.migrate()
    yield made
    made.store.close()


def submit(runner: Runner, *, seeds: list[int]) -> str:
    request = SweepRequest(
        workload="mlp",
        workload_options={"width": 8},
        ranks=[2],
        alphas=[8.0],
        lrs=[1e-3],
        seeds=seeds,
        steps=4,
    )
    return sweeps.create(runner.store, runner.settings, request, key=None, now=time.time()).id


def claim(runner: Runner):
    return jobs.claim(runner.store, owner="test", queues=["default"], now=time.time(), lease_s=15.0)


def fits(num_runs: int):
    """A device for packs of at most ``num_runs`` runs, which breaks after the first points are written."""

    def handler(context):
        if len(context.job.spec["runs"]) > num_runs:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        run_pack(context)

    return lambda kind: handler


def states(runner: Runner) -> list[tuple[str, str]]:
    with runner.store.read() as session:
        return [(run.state, run.job_id) for run in session.scalars(select(RunRow).order_by(RunRow.position))]


def test_a_pack_that_is_too_large_is_split_until_it_fits(runner, monkeypatch):
    monkeypatch.setattr(module, "find_handler", fits(2))
    monkeypatch.setattr("lora_alpha.planning.planner.PACKS_PER_WORKER", 1)
    sweep = submit(runner, seeds=[0, 1, 2, 3, 4])
    first = claim(runner)
    assert len(first.spec["runs"]) == 5
    outcome, reason = runner._run(first)
    assert outcome == "failed"
    assert "two packs of half the size" in reason
    assert [state for state, _ in states(runner)] == ["queued"] * 5
    assert len({job for _, job in states(runner)}) == 2
    outcomes = []
    while (job := claim(runner)) is not None:
        outcomes.append((len(job.spec["runs"]), runner._run(job)[0]))
    assert outcomes == [(3, "failed"), (2, "finished"), (2, "finished"), (1, "finished")]
    found = sweeps.read(runner.store, sweep, now=time.time())
    assert found.state == "finished"
    assert found.counts.finished == 5


def test_a_single_run_that_is_too_large_fails_with_advice(runner, monkeypatch):
    monkeypatch.setattr(module, "find_handler", fits(0))
    sweep = submit(runner, seeds=[0])
    outcome, reason = runner._run(claim(runner))
    assert outcome == "failed"
    assert reason.startswith("out of memory: take a smaller batch or rank")
    assert claim(runner) is None
    with runner.store.read() as session:
        assert session.scalar(select(JobRow.state)) == "failed"
        assert session.scalar(select(RunRow.error)) == reason
    assert sweeps.read(runner.store, sweep, now=time.time()).state == "failed"
