"""The GPU benchmark in small, on a CPU; what it does with faults is tested on stages planted here."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.gpu import packages, stages
from benchmarks.gpu.curves import compare, problems
from benchmarks.gpu.device import in_a_process
from benchmarks.gpu.stages import OutOfTime, Plan, Skip, Stage, run_stages, table

ROOT = Path(__file__).parents[2]
HERE = "tests.benchmarks.test_gpu"
CALM = {("r1", "loss", 0): 4.0, ("r1", "loss", 1): 2.0, ("r2", "loss", 0): 1.0}


def plan_until(tmp_path: Path, seconds: float) -> Plan:
    return Plan("cpu", True, tmp_path / "home", tmp_path / "out", time.monotonic() + seconds)


def passes(plan, figures):
    figures["answer"] = 42
    return "all well"


def raises(plan, figures):
    figures["half"] = 21
    raise ValueError("no such thing\nand more")


def skips(plan, figures):
    raise Skip("nothing to do")


def hangs(plan, figures):
    while True:
        with suppress(Exception):  # as a library might
            time.sleep(1)


def emits(emit, count, ending):
    for index in range(count):
        emit({"index": index})
    if ending == "raise":
        raise ValueError("planted")
    if ending == "die":
        os._exit(3)


def stage(name: str, work, *, limit_s: float = 30, needs=(), after=()) -> Stage:
    return Stage(name, f"{HERE}:{work.__name__}", limit_s, needs, after)


def test_a_failed_stage_is_told_and_the_others_still_run(tmp_path):
    heard = []
    outcomes = run_stages(
        plan_until(tmp_path, 60),
        [
            stage("bad", raises),
            stage("on it", passes, after=("bad",)),
            stage("good", passes),
            stage("no", skips),
        ],
        report=heard.append,
    )
    assert [outcome.state for outcome in outcomes] == ["failed", "failed", "passed", "skipped"]
    assert heard == outcomes
    assert outcomes[0].figures == {"half": 21}
    assert "ValueError: no such thing" in outcomes[0].line()
    assert "bad did not pass" in outcomes[1].says
    assert outcomes[2].figures == {"answer": 42}
    assert len(table(outcomes).splitlines()) == 5


def test_a_stage_ends_at_its_limit_and_all_of_them_at_the_plans(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "LEAST_S", 0.2)
    outcomes = run_stages(
        plan_until(tmp_path, 1.0),
        [stage("own limit", hangs, limit_s=0.3), stage("the plan's", hangs), stage("too late", passes)],
        report=lambda outcome: None,
    )
    assert [outcome.state for outcome in outcomes] == ["failed"] * 3
    assert "not done after" in outcomes[0].says
    assert "not done after" in outcomes[1].says
    assert "no time was left" in outcomes[2].says


def test_time_that_is_up_is_nothing_that_libraries_catch():
    assert not issubclass(OutOfTime, Exception)


def test_a_stage_without_its_packages_is_not_run_and_fails(tmp_path):
    outcomes = run_stages(
        plan_until(tmp_path, 60),
        [stage("a", passes, needs=("no-such-package",))],
        report=lambda outcome: None,
    )
    assert outcomes[0].state == "failed"
    assert "no-such-package not installed" in outcomes[0].says


def test_missing_packages_come_with_the_projects_versions(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\nname = "it"\ndependencies = ["dash[fastapi]>=4,<5"]\n'
        '[project.optional-dependencies]\ntest = ["peft>=0.2"]\n'
    )
    assert packages.missing(["torch", "no-such-package"]) == ["no-such-package"]
    assert packages.pip_lines(["dash", "it", "peft", "else"], project=project) == [
        "pip install 'dash[fastapi]>=4,<5' 'peft>=0.2' else",
        f"pip install --no-deps --editable {tmp_path}",
    ]


def test_every_package_that_a_stage_needs_is_declared_by_the_project():
    itself, with_settings = "lora-alpha", "pydantic"
    needed = {name for each in stages.STAGES for name in each.needs} - {itself, with_settings}
    assert packages.missing(needed) == []
    (line,) = packages.pip_lines(sorted(needed))
    bare = [word for word in line.split()[2:] if word in needed]
    assert bare == [], "these have no version in pyproject.toml"


def test_equal_curves_have_no_problem():
    assert problems(compare(CALM, dict(CALM)), tolerance=0.0) == []
    nan = {("r1", "loss", 0): math.nan, ("r1", "loss", 1): math.inf}
    assert problems(compare(nan, dict(nan)), tolerance=0.0) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({("r1", "loss", 1): 2.4}, r"differ by 0.1 at \('r1', 'loss', 1\)"),
        ({("r1", "loss", 1): math.nan}, "finite in one"),
        ({("r3", "loss", 0): 1.0}, "0 points were lost, 1 are new"),
    ],
)
def test_a_difference_between_curves_is_a_problem(change, says):
    (problem,) = problems(compare(CALM, {**CALM, **change}), tolerance=0.05)
    assert re.search(says, problem)


def test_a_lost_point_and_an_empty_sweep_are_problems():
    lost = {key: value for key, value in CALM.items() if key[0] == "r1"}
    assert problems(compare(CALM, lost), tolerance=1.0) == ["1 points were lost, 0 are new"]
    assert problems(compare({}, {}), tolerance=1.0) == ["there is no point to compare"]


def test_a_difference_within_the_tolerance_is_none_but_is_counted():
    found = compare(CALM, {**CALM, ("r1", "loss", 1): 2.004})
    assert found["largest_difference"] == pytest.approx(0.001)
    assert found["unequal_points"] == 1
    assert problems(found, tolerance=1e-2) == []


def test_a_process_hands_over_what_it_emits():
    assert list(in_a_process(emits, 3, "return")) == [{"index": index} for index in range(3)]
    rows = []
    with pytest.raises(RuntimeError, match="ValueError: planted"):
        rows.extend(in_a_process(emits, 1, "raise"))
    with pytest.raises(RuntimeError, match="ended with 3"):
        rows.extend(in_a_process(emits, 0, "die"))


def test_a_process_is_ended_when_its_time_has_come():
    assert list(in_a_process(emits, 1, "return", until=time.monotonic())) == []


@pytest.mark.slow
def test_the_whole_in_small(tmp_path):
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("workers take the GPU of this machine: run `python -m benchmarks gpu --quick`")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--quick", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr

    figures = json.loads((out / "figures.json").read_text())
    assert figures["passed"]
    assert figures["missing_packages"] == []
    assert figures["machine"]["packages"]["torch"]
    by_name = {each["name"]: each for each in figures["stages"]}
    assert [each.name for each in stages.STAGES] == list(by_name)
    skipped = [name for name, each in by_name.items() if each["state"] == "skipped"]
    assert skipped == ["tests"]
    assert all(each["state"] == "passed" for name, each in by_name.items() if name != "tests")

    swept, disturbed = by_name["sweeps"]["figures"], by_name["kill"]["figures"]["mlp"]
    assert swept["mlp"]["finished"] == swept["mlp"]["runs"] == disturbed["finished"] == 8
    assert swept["charlm"]["finished"] == swept["charlm"]["runs"] == 2
    assert [probe["state"] for probe in swept["probes"]] == ["finished"] * 6
    assert disturbed["killed_processes"] == 2
    assert disturbed["runs_taken_over"] >= 1
    assert disturbed["unequal_points"] == disturbed["lost_points"] == disturbed["added_points"] == 0
    assert by_name["engine"]["figures"]["runs"] == 8
    assert by_name["packing"]["figures"]["complete"]

    with sqlite3.connect(out / "lora_alpha.db") as database:
        states = dict(database.execute("SELECT state, count(*) FROM runs GROUP BY state"))
    database.close()
    assert states == {"finished": 18}
    assert "worker-0.log" in (out / "logs.txt").read_text()
    assert "packing  passed" in ended.stdout
