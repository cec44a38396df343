"""Training one pack of runs: engine events in, fenced transactions out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import save_file
from sqlalchemy import update
from sqlalchemy.orm import Session
from torch import Tensor

from backend.services.probe_plans import queue_planned_probes
from backend.store.metrics import CurveWriter
from backend.store.tables import RunRow
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.checkpoints import load_checkpoint, save_checkpoint
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import AdaptersKept, CheckpointDue, PackFinished, RunResult, StepsDone
from lora_alpha.workloads.base import Workload
from workers.context import JobContext
from workers.handlers.init_adapter import read_init_adapter
from workers.handlers.pretrain import load_prepared


def run_pack(context: JobContext) -> None:
    """Train the job's runs from its checkpoint to their end."""
    spec = context.job.spec
    train = TrainSpec.model_validate(spec["train"])
    run_ids = [run["id"] for run in spec["runs"]]
    configurations = [Configuration.model_validate(run["configuration"]) for run in spec["runs"]]
    workload = load_prepared(context, train.workload, train.workload_options)
    with context.store.read() as session:
        curves = CurveWriter(session, run_ids, token=context.job.attempt)
    events = train_pack(
        workload,
        train,
        configurations,
        device=torch.device(context.device),
        init_adapter=read_init_adapter(train.init_adapter, settings=context.settings),
        resume=_resume(context),
        wants_checkpoint=context.wants_checkpoint,
    )
    job, files = context.job, context.settings.files
    step = job.checkpoint_step

    def write(session: Session) -> None:
        curves.write(session, now=time.time())
        session.execute(update(RunRow).where(RunRow.id.in_(run_ids)).values(step=step))

    for event in events:
        match event:
            case StepsDone():
                step = event.step
                for block in event.blocks:
                    steps = block.start_step + block.stride * np.arange(block.values.shape[1])
                    curves.add(block.metric, steps, block.values)
                if context.due() and step < train.steps:
                    context.commit(
                        write, progress=step / train.steps, message=f"step {step} of {train.steps}"
                    )
            case CheckpointDue():
                path = files.checkpoint(job.id, step=event.step, attempt=job.attempt)
                save_checkpoint(path, event.state)
                context.commit(write, progress=event.step / train.steps, checkpoint=(path, event.step))
                files.forget_checkpoints(job.id, keep=path)
                context.stop_at_checkpoint()
            case AdaptersKept():
                _save_adapters(context, run_ids, event.adapters, workload, step=event.step)
            case PackFinished():
                paths = _save_adapters(context, run_ids, event.adapters["adapters"], workload)
                _finish(context, curves, run_ids, event.results, paths, steps=train.steps)
                files.forget_checkpoints(job.id)


def _finish(
    context: JobContext,
    curves: CurveWriter,
    run_ids: Sequence[str],
    results: Sequence[RunResult],
    adapters: Sequence[str],
    *,
    steps: int,
) -> None:
    now = time.time()

    def write(session: Session) -> None:
        curves.write(session, now=now)
        session.execute(
            update(RunRow),
            [
                {
                    "id": run_id,
                    "diverged": result.diverged,
                    "step": result.diverged_step if result.diverged_step is not None else steps,
                    "final_loss": result.final_loss,
                    "best_loss": result.best_loss,
                    "best_step": result.best_step,
                    "forgetting": result.forgetting,
                    "summary": result.summary,
                    "adapter": adapter,
                }
                for run_id, result, adapter in zip(run_ids, results, adapters, strict=True)
            ],
        )
        queue_planned_probes(session, context.settings, run_ids, now=now)

    context.finish(write)


def _resume(context: JobContext) -> dict[str, object] | None:
    if context.job.checkpoint is None:
        return None
    return load_checkpoint(context.settings.files.at(context.job.checkpoint))


def _save_adapters(
    context: JobContext,
    run_ids: Sequence[str],
    adapters: Sequence[dict[str, dict[str, Tensor]]],
    workload: Workload,
    *,
    step: int | None = None,
) -> list[str]:
    """One safetensors file a run, ``layer/tensor`` keys; returns paths relative to home.

    Layers that the workload made itself (a new head) come with their own base, as ``new_weight`` and
    ``new_bias``: no model's files have it. ``step`` is None for the end of training.
    """
    bases = {
        f"{layer}/new_{name}": tensor.contiguous()
        for layer, parts in workload.new_layers().items()
        for name, tensor in parts.items()
    }
    paths = []
    for run_id, layers in zip(run_ids, adapters, strict=True):
        path = context.settings.files.adapter(run_id, step=step)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{context.job.attempt}.tmp")
        tensors = {
            f"{layer}/{name}": tensor.contiguous()
            for layer, parts in layers.items()
            for name, tensor in parts.items()
        }
        save_file({**tensors, **bases}, temporary)
        temporary.replace(path)
        paths.append(context.settings.files.pointer(path))
    return paths
