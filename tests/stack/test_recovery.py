"""Nothing is lost or done twice, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import run_stack  # noqa: E402

# About 4 s of work on two workers: long enough to be hit in the middle, with several checkpoints.
REQUEST = {
    "workload": "mlp",
    "workload_options": {"width": 16},
    "ranks": [1, 4],
    "alphas": [8, 32, 128],
    "seeds": [0, 1],
    "steps": 800,
    "checkpoint_steps": 50,
    "eval_every": 100,
}
SETTINGS = {"lease_s": "3", "ring_after_s": "1", "max_attempts": "6"}


def test_kill_9_of_every_worker_and_runner_in_mid_sweep(tmp_path):
    _check_recovery(tmp_path, {})


@pytest.mark.slow
@pytest.mark.services
def test_kill_9_on_postgresql_and_redis(tmp_path, team):
    _check_recovery(tmp_path, team)


def _check_recovery(tmp_path: Path, settings: dict[str, str]) -> None:
    with run_stack(tmp_path / "home", **SETTINGS, **settings) as stack, stack.client() as client:
        calm = client.create_sweep(REQUEST)
        stack.wait(calm.id)
        stormy = client.create_sweep(REQUEST)
        for share in (0.25, 0.6):
            stack.wait_until(stormy.id, lambda sweep, share=share: sweep.progress >= share)
            victims = stack.workers_and_runners()
            assert len(victims) >= 2
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(stack.home / "queue", ignore_errors=True)
        ended = stack.wait(stormy.id)
        assert ended.state == "finished"
        assert ended.counts.finished == ended.counts.total == 12
        assert stack.history(stormy.id) == stack.history(calm.id)


@pytest.mark.slow
def test_a_suspended_runner_loses_its_job_and_cannot_write_any_more(tmp_path):
    with run_stack(tmp_path / "home", **SETTINGS) as stack, stack.client() as client:
        calm, stormy = client.create_sweep(REQUEST), client.create_sweep(REQUEST)
        stack.wait(calm.id)
        stack.wait_until(stormy.id, lambda sweep: sweep.progress >= 0.2)
        frozen = stack.workers_and_runners()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        assert stack.wait(stormy.id).state == "finished"
        assert stack.history(stormy.id) == stack.history(calm.id)


def test_cancel_takes_effect_within_three_seconds(tmp_path):
    with run_stack(tmp_path / "home") as stack, stack.client() as client:
        sweep = client.create_sweep({**REQUEST, "steps": 100_000})
        stack.wait_until(sweep.id, lambda sweep: sweep.progress > 0)
        started = time.monotonic()
        client.sweep_action(sweep.id, "cancel")
        ended = stack.wait_until(sweep.id, lambda sweep: sweep.state == "cancelled", timeout_s=10)
        assert time.monotonic() - started < 3
        assert ended.counts.cancelled == ended.counts.total


@pytest.mark.slow
def test_pause_and_resume_keep_what_was_done(tmp_path):
    with run_stack(tmp_path / "home") as stack, stack.client() as client:
        sweep = client.create_sweep(REQUEST)
        stack.wait_until(sweep.id, lambda sweep: sweep.progress >= 0.2)
        client.sweep_action(sweep.id, "pause")
        paused = stack.wait_until(sweep.id, lambda sweep: sweep.state == "paused", timeout_s=15)
        time.sleep(1)
        assert client.sweep(sweep.id).progress == pytest.approx(paused.progress)
        client.sweep_action(sweep.id, "resume")
        assert stack.wait(sweep.id).state == "finished"
        assert {metric for _, metric, _ in stack.history(sweep.id)} >= {"train_loss", "eval_loss"}


@pytest.mark.slow
def test_interrupt_stops_everything_and_the_next_start_continues(tmp_path):
    with run_stack(tmp_path / "home") as stack, stack.client() as client:
        sweep = client.create_sweep(REQUEST)
        stack.wait_until(sweep.id, lambda sweep: sweep.progress >= 0.2)
        started = time.monotonic()
        stack.process.send_signal(signal.SIGINT)
        stack.process.wait(12)
        assert time.monotonic() - started < 10
        assert stack.workers_and_runners() == []
    with run_stack(tmp_path / "home") as stack:
        assert stack.wait(sweep.id).counts.finished == 12


def test_a_taken_port_is_said_at_once(tmp_path):
    with run_stack(tmp_path / "home") as stack:
        port = stack.address.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "command_line", "up", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "--port" in ended.stderr
