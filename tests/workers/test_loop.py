"""What a worker makes of a job that stopped being its own."""

from __future__ import annotations

import time

import pytest

from backend.services import jobs, sweeps
from backend.settings import Settings
from backend.store.engines import open_store
from backend.store.tables import JobRow
from lora_alpha.request import SweepRequest
from workers.loop import WorkerLoop

LEASE_S = 0.03  # renewed at a third of it: between any two polls


class FakeRunner:
    """A warm runner whose job leaves it, by ``leave``, between two polls."""

    def __init__(self, leave, *, says):
        self.leave, self.says = leave, says
        self.killed = False

    def submit(self, job):
        self.job = job

    def poll(self, timeout_s):
        if self.leave is not None:
            self.leave(self.job)
            self.leave = None
            time.sleep(LEASE_S)
            return None
        return {"event": "done", "outcome": self.says} if self.says else None

    def alive(self):
        return True

    def is_silent(self, after_s):
        return False

    def kill(self):
        self.killed = True

    def warm_up(self):
        pass


@pytest.fixture
def loop(tmp_path):
    settings = Settings(home=tmp_path, workers=1, lease_s=LEASE_S)
    store = open_store(settings.database)
    store.migrate()
    request = SweepRequest(workload="mlp", ranks=[2], alphas=[8.0], lrs=[1e-3], seeds=[0], steps=4)
    sweeps.create(store, settings, request, key=None, now=time.time())
    yield WorkerLoop(store, settings, device="cpu", queues=("default",))
    store.close()


def run_one(loop: WorkerLoop, runner: FakeRunner) -> None:
    loop.runner = runner
    loop._run(loop._claim())


def test_a_runner_that_has_just_finished_its_job_stays_warm(loop):
    def finish(job):
        jobs.finish(loop.store, job, now=time.time())

    runner = FakeRunner(finish, says="finished")
    run_one(loop, runner)
    assert not runner.killed


@pytest.mark.parametrize("says", [None, "lease_lost"])
def test_a_runner_whose_job_is_somebody_elses_is_killed(loop, says):
    def take_over(job):
        with loop.store.write() as session:
            session.get_one(JobRow, job.id).attempt += 1

    runner = FakeRunner(take_over, says=says)
    run_one(loop, runner)
    assert runner.killed
