"""Running stages one after the other: each within a time limit, each failure told and survived."""

from __future__ import annotations

import importlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from benchmarks.gpu.packages import APPLICATION, ENGINE, PACKING, TESTS, missing

Figures = dict[str, Any]
# Less than this is not worth starting a stage for.
LEAST_S = 3.0
# Characters of a line that a table shows; figures.json has all of it.
LINE = 140


class OutOfTime(BaseException):
    """A stage has used up its time. Not an ``Exception``: libraries that catch those must let it pass."""


class Skip(Exception):
    """A stage has nothing to do here; the text says why."""


@dataclass
class Plan:
    """What all stages share.

    Attributes:
        device: ``cuda`` or ``cpu``.
        quick: Tiny sizes.
        home: LORA_ALPHA_HOME of the service, empty at first.
        out: Folder of the results.
        deadline: ``time.monotonic()`` at which the last stage ends.
        machine: Names and versions, as far as stages found them out.
        running: What ``close`` ends: the service.
        shared: What a stage leaves for later ones.
    """

    device: str
    quick: bool
    home: Path
    out: Path
    deadline: float
    machine: Figures = field(default_factory=dict)
    running: ExitStack = field(default_factory=ExitStack)
    shared: dict[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        """End what the stages left running; the second call does nothing."""
        self.running.close()


@dataclass(frozen=True)
class Stage:
    """A function ``module:name`` that fills figures and returns a line about them.

    ``after``: stages without which it cannot run. ``needs``: packages, likewise.
    """

    name: str
    place: str
    limit_s: float
    needs: tuple[str, ...]
    after: tuple[str, ...] = ()

    def work(self, plan: Plan, figures: Figures) -> str:
        """Do it, with its packages imported only now."""
        module, _, name = self.place.partition(":")
        line: str = getattr(importlib.import_module(module), name)(plan, figures)
        return line


STAGES = (
    Stage("machine", "benchmarks.gpu.device:describe", 60, ENGINE),
    Stage("up", "benchmarks.gpu.service:start", 75, APPLICATION, after=("machine",)),
    Stage("sweeps", "benchmarks.gpu.service:sweeps", 150, APPLICATION, after=("up",)),
    Stage("kill", "benchmarks.gpu.service:kill", 150, APPLICATION, after=("up",)),
    Stage("down", "benchmarks.gpu.service:stop", 30, APPLICATION),
    Stage("tests", "benchmarks.gpu.device:tests", 120, TESTS, after=("machine",)),
    Stage("engine", "benchmarks.gpu.device:engine", 60, ENGINE, after=("machine",)),
    Stage("packing", "benchmarks.gpu.device:packing", 150, PACKING, after=("machine",)),
)


@dataclass
class Outcome:
    """How a stage ended. A failed one keeps the figures it had."""

    name: str
    state: Literal["passed", "failed", "skipped"]
    seconds: float
    says: str
    figures: Figures

    def as_dict(self) -> Figures:
        """As ``figures.json`` has it."""
        return asdict(self)

    def line(self) -> str:
        """One line of the table."""
        says = self.says.strip().splitlines()[0] if self.says.strip() else ""
        return f"{self.name:8s} {self.state:8s} {self.seconds:6.1f}  {says[:LINE]}"


def run_stages(
    plan: Plan, stages: Sequence[Stage] = STAGES, *, report: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run ``stages`` in order, whatever becomes of the ones before; ``report`` hears of each as it ends."""
    outcomes: list[Outcome] = []
    for stage in stages:
        outcomes.append(_run(stage, plan, {outcome.name: outcome.state for outcome in outcomes}))
        report(outcomes[-1])
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """All outcomes, one line each."""
    return "\n".join(["stage    state    seconds  figures", *(outcome.line() for outcome in outcomes)])


def _run(stage: Stage, plan: Plan, states: dict[str, str]) -> Outcome:
    figures: Figures = {}
    started = time.monotonic()

    def outcome(state: Literal["passed", "failed", "skipped"], says: str) -> Outcome:
        return Outcome(stage.name, state, round(time.monotonic() - started, 2), says, figures)

    limit_s = min(stage.limit_s, plan.deadline - started)
    if lacking := [name for name in stage.after if states[name] != "passed"]:
        return outcome("failed", f"not run: {', '.join(lacking)} did not pass")
    if absent := missing(stage.needs):
        return outcome("failed", f"not run: {', '.join(absent)} not installed")
    if limit_s < LEAST_S:
        return outcome("failed", "not run: no time was left")
    try:
        with time_limit(limit_s):
            return outcome("passed", stage.work(plan, figures))
    except Skip as reason:
        return outcome("skipped", str(reason))
    except OutOfTime:
        return outcome("failed", f"not done after {limit_s:.0f} s\n{traceback.format_exc()}")
    except Exception as error:
        return outcome("failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``OutOfTime`` in the body after ``seconds``; of the main thread only."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
