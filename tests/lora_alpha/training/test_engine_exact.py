"""The engine on a workload whose losses are written down: when it reports, and what it calls diverged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training import engine
from lora_alpha.training.records import PackFinished, RunResult, StepsDone
from lora_alpha.workloads.base import Batch, Workload


class Script(Workload):
    """One weight: losses of evaluation i in ``held_out[i]``, ``at_step`` runs each step."""

    name = "script"

    def __init__(
        self, held_out: Sequence[Sequence[float]], at_step: Callable[[], None] = lambda: None
    ) -> None:
        self.held_out = iter(held_out)
        self.at_step = at_step

    def build_model(self, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 1)).to(device=device, dtype=dtype).requires_grad_(False)

    def batch(self, model: nn.Module, *, step: int, seeds: Sequence[int], batch_size: int) -> Batch:
        self.at_step()
        return {"x": torch.ones(len(seeds), 1, dtype=torch.float64)}

    def losses(self, model: nn.Module, batch: Batch, *, num_configs: int) -> Tensor:
        losses: Tensor = model(batch["x"]).square().sum(1)
        return losses

    def evaluate(self, model: nn.Module, *, num_configs: int) -> dict[str, Tensor]:
        return {"eval_loss": torch.tensor(next(self.held_out), dtype=torch.float64)}


def spec(**changes: int) -> TrainSpec:
    given = {"steps": 2, "eval_every": 1000, "checkpoint_steps": 1000, **changes}
    return TrainSpec(workload="script", batch_size=1, dtype="float64", **given)  # type: ignore[arg-type]


def results(first: Sequence[float], last: Sequence[float]) -> tuple[RunResult, ...]:
    """What becomes of configurations whose held-out loss goes from ``first`` to ``last``."""
    pack = [Configuration(method="lora", rank=1, alpha=1.0, lr=1e-3, seed=seed) for seed in range(len(first))]
    *_, finished = engine.train_pack(Script([first, last]), spec(), pack)
    assert isinstance(finished, PackFinished)
    return finished.results


def test_ten_times_the_untrained_loss_is_a_divergence_and_a_little_less_is_none() -> None:
    found = results([2.0, 2.0, 2.0, 2.0], [19.9, 20.1, math.nan, math.inf])
    assert [result.diverged for result in found] == [False, True, True, True]
    assert [result.diverged_step for result in found] == [None, 2, 2, 2]
    assert [result.final_loss for result in found] == [19.9, None, None, None]


def test_where_the_untrained_loss_is_nearly_zero_a_thousandth_stands_for_it() -> None:
    found = results([1e-9, 1e-9], [0.0099, 0.0101])
    assert [result.diverged for result in found] == [False, True]


@pytest.mark.parametrize(
    ("seconds_per_step", "reported"),
    [
        (0.0, [0, 25, 50, 55]),  # a block of 25 steps
        (0.3, [0, 2, 4, 6]),  # half a second of silence
        (0.49, [0, 2, 4, 6]),
        (0.51, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_steps_are_reported_in_blocks_and_after_half_a_second(
    seconds_per_step: float, reported: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def pass_time() -> None:
        clock.now += seconds_per_step

    steps = reported[-1]
    events = engine.train_pack(
        Script([[1.0], [1.0]], pass_time),
        spec(steps=steps),
        [Configuration(method="lora", rank=1, alpha=1.0, lr=1e-3)],
    )
    done = [event for event in events if isinstance(event, StepsDone)]
    assert [event.step for event in done] == reported
    assert done[-1].wall_time_s == pytest.approx(steps * seconds_per_step)
