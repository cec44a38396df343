"""The packed engine: trains a pack of configurations and says what happens, event by event.

It knows no database. ``train_pack`` is a generator; closing it stops training within one step. Losses stay on
the device and are read once a block. Configurations never influence each other, so one that turns non-finite
may run on until its block is read: then it is quarantined (put back to the base, frozen, NaN from that step).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_alpha.models.init_adapter import start_from
from lora_alpha.models.packed import PackedAdapters, inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.dynamics_recorder import DynamicsRecorder
from lora_alpha.training.optimizers import make_optimizer
from lora_alpha.training.records import (
    AdaptersKept,
    CheckpointDue,
    FloatArray,
    MetricBlock,
    PackFinished,
    RunResult,
    StepsDone,
    TrainingEvent,
)
from lora_alpha.training.schedules import AlphaFactors, lr_factor
from lora_alpha.workloads.base import Workload

# A held-out loss this many times the untrained one (or the whole scale of the metric) is a divergence: no
# configuration that got there has come back within a sweep's horizon, and averaging it would drown its cell.
DIVERGENCE_FACTOR = 10.0
# Steps between two reports, and the longest silence between them.
BLOCK_STEPS = 25
BLOCK_SECONDS = 0.5

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def train_pack(
    workload: Workload,
    train: TrainSpec,
    configurations: Sequence[Configuration],
    *,
    device: torch.device | str = "cpu",
    resume: dict[str, Any] | None = None,
    init_adapter: Mapping[str, Mapping[str, Tensor]] | None = None,
    wants_checkpoint: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingEvent]:
    """Train every configuration over one frozen base.

    Args:
        workload: A prepared workload (``prepare`` has run).
        train: What the configurations share.
        configurations: N configurations; all events use this order.
        device: Where to train.
        init_adapter: Adapter that every configuration starts from (``models/init_adapter.py``); None: B = 0.
        resume: The ``state`` of a ``CheckpointDue`` of the same pack; curves continue bitwise.
        wants_checkpoint: Asked after every step; True brings a ``CheckpointDue`` at once (pause, drain).

    Yields:
        ``StepsDone`` blocks, ``AdaptersKept`` after each of ``train.adapter_steps``, ``CheckpointDue`` every
        ``train.checkpoint_steps`` (both after the blocks up to that step), and ``PackFinished`` once.
    """
    session = _Session(workload, train, configurations, torch.device(device), resume, init_adapter)
    yield from session.run(wants_checkpoint)


class _Session:
    """One pack in training. Arrays of this class are in the caller's order, tensors in pack order."""

    def __init__(
        self,
        workload: Workload,
        train: TrainSpec,
        configurations: Sequence[Configuration],
        device: torch.device,
        resume: dict[str, Any] | None,
        init_adapter: Mapping[str, Mapping[str, Tensor]] | None,
    ) -> None:
        self.workload = workload
        self.train = train
        self.device = device
        self.model = workload.build_model(device=device, dtype=DTYPES[train.dtype])
        self.adapters: PackedAdapters = inject(
            self.model,
            workload.targets(self.model),
            configurations,
            dropout=train.lora_dropout,
            **workload.patterns(),
        )
        if init_adapter is not None:
            start_from(self.adapters, init_adapter)
        self.model.to(device)
        self.recorder = DynamicsRecorder(self.adapters) if train.dynamics_every else None
        self._dynamics: list[dict[str, Tensor]] = []
        self.optimizer = make_optimizer(self.adapters, train)
        self.seeds = [c.seed for c in self.adapters.configurations]
        self.num_configs = len(configurations)
        self.step = 0
        self.diverged_step = np.full(self.num_configs, -1)
        self.first_eval: FloatArray | None = None
        self.best_loss = np.full(self.num_configs, np.inf)
        self.best_step = np.zeros(self.num_configs, dtype=np.int64)
        self.last: dict[str, FloatArray] = {}
        self.wall_time_s = 0.0
        self._clock = time.perf_counter()
        self._buffer: list[Tensor] = []
        self._alpha = AlphaFactors([c.alpha_schedule for c in self.adapters.configurations])
        self._own_scale = np.array([c.scale or 1.0 for c in self.adapters.configurations])
        self._scale = self._caller_order(self._own_scale)
        self._scale_log: list[FloatArray] = []
        if resume is not None:
            self._load(resume)

    def run(self, wants_checkpoint: Callable[[], bool]) -> Iterator[TrainingEvent]:
        """The events of the whole pack."""
        if self.step == 0:
            yield self._report([*self._evaluate()])
        reported = time.perf_counter()
        while self.step < self.train.steps:
            self._train_step()
            due = self.step % self.train.checkpoint_steps == 0 or wants_checkpoint()
            checkpoint = due and self.step < self.train.steps
            evaluation = self.step % self.train.eval_every == 0 or self.step == self.train.steps
            waited = time.perf_counter() - reported
            keep = self.step in self.train.adapter_steps and self.step < self.train.steps
            if checkpoint or evaluation or keep or len(self._buffer) >= BLOCK_STEPS or waited > BLOCK_SECONDS:
                blocks = self._flush()
                if evaluation:
                    blocks += self._evaluate()
                reported = time.perf_counter()
                yield self._report(blocks)
            if keep:
                yield AdaptersKept(step=self.step, adapters=tuple(self.adapters.export()))
            if checkpoint:
                yield CheckpointDue(step=self.step, state=self._state())
        yield self._finished()

    def _train_step(self) -> None:
        if self._alpha.moves:
            factors = self._alpha.at(self.step)
            self.adapters.set_scale_factor(torch.tensor(factors, dtype=torch.float64))
            self._scale = self._caller_order(self._own_scale * factors)
            self._scale_log.append(self._scale)
        if self.recorder is not None and (self.step + 1) % self.train.dynamics_every == 0:
            with self.recorder.watch():
                self._update()
            metrics = self.recorder.metrics
            self._dynamics.append(metrics)
            self._alpha.observe({name: metrics[name].tolist() for name in self._alpha.watched})
        else:
            self._update()
        self.step += 1

    def _update(self) -> None:
        self.optimizer.zero_grad()
        batch = self.workload.batch(
            self.model, step=self.step, seeds=self.seeds, batch_size=self.train.batch_size
        )
        parts = self.workload.micro_batches(batch, num_configs=self.num_configs)
        losses_N = torch.zeros(self.num_configs, dtype=torch.float64, device=self.device)
        for index, part in enumerate(parts):
            # Around the backward pass too: gradient checkpointing computes layers again.
            with self.adapters.dropout.dropping(step=self.step, microbatch=index):
                part_N = self.workload.losses(self.model, part, num_configs=self.num_configs)
                part_N.sum().backward()  # type: ignore[no-untyped-call]
            losses_N += part_N.detach()
        norms_N = self.optimizer.gradient_norms()
        if self.train.clip is not None:
            self.optimizer.clip(norms_N, self.train.clip)
        self.optimizer.step(
            lr_factor(
                self.step,
                schedule=self.train.lr_schedule,
                steps=self.train.steps,
                warmup=self.train.warmup,
            )
        )
        self._buffer.append(torch.stack([losses_N, norms_N.double()]))

    def _flush(self) -> list[MetricBlock]:
        """Read the buffered losses, quarantine what is no longer finite, return the blocks."""
        values = torch.stack(self._buffer, dim=2).cpu().numpy()
        self._buffer.clear()
        losses, norms = (self._caller_order(array) for array in values)
        first = self.step - losses.shape[1] + 1
        finite = np.isfinite(losses) & np.isfinite(norms)
        for index in np.flatnonzero(~finite.all(axis=1)):
            self._quarantine(int(index), first + int(np.argmin(finite[index])))
        for index in np.flatnonzero(self.diverged_step >= 0):
            dead_from = max(0, int(self.diverged_step[index]) - first)
            losses[index, dead_from:] = np.nan
            norms[index, dead_from:] = np.nan
        blocks = [MetricBlock("train_loss", first, 1, losses), MetricBlock("grad_norm", first, 1, norms)]
        if self._scale_log:
            scales = np.stack(self._scale_log, axis=1)
            self._scale_log.clear()
            scales[np.isnan(losses)] = np.nan
            blocks.append(MetricBlock("scale", first, 1, scales))
        return [*blocks, *self._dynamics_blocks()]

    def _dynamics_blocks(self) -> list[MetricBlock]:
        """Statistics of the watched steps; the total ``update_norm`` is left to the evaluations."""
        if not self._dynamics:
            return []
        every = self.train.dynamics_every
        first = (self.step // every - len(self._dynamics) + 1) * every
        names = [name for name in self._dynamics[0] if name != "update_norm"]
        stacked = torch.stack(
            [torch.stack([point[name] for name in names]) for point in self._dynamics], dim=2
        )
        self._dynamics.clear()
        blocks = []
        for name, values in zip(names, stacked.cpu().numpy(), strict=True):
            ordered = self._caller_order(values)
            for index in np.flatnonzero(self.diverged_step >= 0):
                ordered[index, first + every * np.arange(ordered.shape[1]) >= self.diverged_step[index]] = (
                    np.nan
                )
            blocks.append(MetricBlock(name, first, every, ordered))
        return blocks

    def _evaluate(self) -> list[MetricBlock]:
        with torch.no_grad():
            tensors = self.workload.evaluate(self.model, num_configs=self.num_configs)
            tensors = {**tensors, **self.adapters.norms()}
        values = {
            name: self._caller_order(tensor.detach().double().cpu().numpy())
            for name, tensor in tensors.items()
        }
        loss = values["eval_loss"]
        if self.first_eval is None:
            self.first_eval = loss.copy()
        limit = DIVERGENCE_FACTOR * np.maximum(self.first_eval, 1e-3)
        for index in np.flatnonzero(~(loss <= limit)):
            self._quarantine(int(index), self.step)
        dead = self.diverged_step >= 0
        for value in values.values():
            value[dead] = np.nan
        better = loss < self.best_loss
        self.best_loss = np.where(better, loss, self.best_loss)
        self.best_step = np.where(better, self.step, self.best_step)
        blocks = [MetricBlock(name, self.step, 1, value[:, None]) for name, value in values.items()]
        # The steps have logged the scale: the run's summary keeps the last one.
        self.last = {**values, "scale": self._scale} if self._alpha.moves else values
        return blocks

    def _quarantine(self, index: int, step: int) -> None:
        if self.diverged_step[index] >= 0:
            return
        self.diverged_step[index] = step
        pack_index = self.adapters.order.index(index)
        self.adapters.reset(pack_index)
        self.optimizer.freeze(pack_index)

    def _caller_order(self, values: FloatArray) -> FloatArray:
        ordered = np.empty_like(values)
        ordered[list(self.adapters.order)] = values
        return ordered

    def _report(self, blocks: list[MetricBlock]) -> StepsDone:
        self._tick()
        return StepsDone(self.step, self.train.steps, tuple(blocks), self.wall_time_s)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.wall_time_s += now - self._clock
        self._clock = now

    def _finished(self) -> PackFinished:
        self._tick()
        return PackFinished(
            results=tuple(self._result(index) for index in range(self.num_configs)),
            adapters={"adapters": self.adapters.export()},
            wall_time_s=self.wall_time_s,
        )

    def _result(self, index: int) -> RunResult:
        diverged = self.diverged_step[index] >= 0
        final = {name: float(value[index]) for name, value in self.last.items()}
        best = float(self.best_loss[index])
        return RunResult(
            diverged=bool(diverged),
            diverged_step=int(self.diverged_step[index]) if diverged else None,
            final_loss=None if diverged else final["eval_loss"],
            best_loss=best if np.isfinite(best) else None,
            best_step=int(self.best_step[index]) if np.isfinite(best) else None,
            forgetting=None if diverged else final.get("forgetting_loss"),
            summary={
                "seconds_per_step": self.wall_time_s / self.train.steps / self.num_configs,
                **({} if diverged else {name: value for name, value in final.items() if name != "eval_loss"}),
            },
        )

    def _state(self) -> dict[str, Any]:
        assert self.first_eval is not None
        return {
            "step": self.step,
            "adapters": self.adapters.state(),
            "optimizer": self.optimizer.state(),
            "alpha": self._alpha.state(),
            "diverged_step": self.diverged_step.tolist(),
            "first_eval": self.first_eval.tolist(),
            "best_loss": self.best_loss.tolist(),
            "best_step": self.best_step.tolist(),
            "last": {name: value.tolist() for name, value in self.last.items()},
            "wall_time_s": self.wall_time_s,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.adapters.load_state(state["adapters"])
        self.optimizer.load_state(state["optimizer"])
        self._alpha.load_state(state["alpha"])
        self.diverged_step = np.array(state["diverged_step"])
        self.first_eval = np.array(state["first_eval"])
        self.best_loss = np.array(state["best_loss"])
        self.best_step = np.array(state["best_step"])
        self.last = {name: np.array(value) for name, value in state["last"].items()}
        self.wall_time_s = state["wall_time_s"]
