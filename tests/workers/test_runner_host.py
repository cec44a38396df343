"""What a worker hears of its runner: the outcome of the job that it submitted last, of no other."""

from __future__ import annotations

import sys
import time

import pytest

from backend.services.jobs import ClaimedJob
from workers.runner_host import RunnerHost

# Says first what a runner would say of other jobs, then what the message asks for.
PROGRAM = """
import json, os, sys
pipe = os.fdopen(int(sys.argv[sys.argv.index("--protocol") + 1]), "w", buffering=1)
def say(**message): pipe.write(json.dumps(message) + "\\n")
say(event="ready")
for line in sys.stdin:
    job = json.loads(line)["job"]
    say(event="done", job="earlier", attempt=job["attempt"], outcome="failed")
    say(event="done", job=job["id"], attempt=job["attempt"] - 1, outcome="failed")
    if job["spec"].get("answer"):
        say(event="done", job=job["id"], attempt=job["attempt"], outcome="finished")
    say(event="alive")
"""


@pytest.fixture
def host(tmp_path):
    made = RunnerHost(device="cpu", log_path=tmp_path / "log", program=(sys.executable, "-c", PROGRAM))
    yield made
    made.close()


def job(attempt: int, **spec: bool) -> ClaimedJob:
    return ClaimedJob(
        id="job", kind="pack", sweep_id=None, attempt=attempt, spec=spec, checkpoint=None, checkpoint_step=0
    )


def outcome(host: RunnerHost):
    """The next outcome, waited for as long as it takes a slow machine to start Python."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (done := host.poll(0.1)) is not None:
            return done
    return pytest.fail("no outcome in 30 s")


def test_a_late_message_of_an_earlier_job_or_attempt_is_not_the_present_jobs(host):
    for attempt in (2, 3):
        host.submit(job(attempt, answer=True))
        done = outcome(host)
        assert (done["job"], done["attempt"], done["outcome"]) == ("job", attempt, "finished")


def test_late_messages_alone_are_no_outcome(host):
    host.submit(job(2))
    host.submit(job(3, answer=True))  # both of the earlier job's messages are read on the way
    assert outcome(host)["attempt"] == 3
